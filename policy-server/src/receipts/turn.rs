use uuid::Uuid;

/// Which question of which agent it is, as far as these tell.
///
/// A cell that has something new to say takes its question back and asks another, on another connection
/// perhaps, and a server may read the two in either order: what the earlier one says must not stand for as
/// long as the later one is held.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Turn {
    /// Which agent asks, by the name it took when it was started.
    pub agent: Option<Uuid>,
    /// How many questions it had asked before.
    pub question: Option<u64>,
}

impl Turn {
    /// Whether the agent has asked another question, `last`, since. One without a name may have been started
    /// again, and count anew.
    pub(super) fn is_before(self, last: Self) -> bool {
        let asked = self.question.zip(last.question);
        self.agent.is_some()
            && self.agent == last.agent
            && asked.is_some_and(|(this, last)| this < last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_overtaken_by_a_later_one_of_the_same_agent() {
        let turn = |agent, question| Turn { agent: Some(Uuid::from_u128(agent)), question };
        assert!(turn(1, Some(8)).is_before(turn(1, Some(9))));
        assert!(!turn(1, Some(9)).is_before(turn(1, Some(9))), "somebody on the way sent it twice");
        assert!(!turn(1, Some(9)).is_before(turn(1, Some(8))));
        assert!(!turn(2, Some(0)).is_before(turn(1, Some(9))), "it was started again");
        assert!(!turn(1, None).is_before(turn(1, Some(9))), "one that does not count has one turn");
        assert!(!turn(1, Some(8)).is_before(Turn::default()));
        let nameless = |question| Turn { agent: None, question: Some(question) };
        assert!(!nameless(0).is_before(nameless(9)));
    }
}
