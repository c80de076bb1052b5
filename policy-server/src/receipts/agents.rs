//! Which agents say that they are a cell. A machine that was made of the image of another may have its
//! cell's name as well, and what one of the two confirms says nothing of the other.

use std::time::{Duration, Instant};

use uuid::Uuid;

/// An agent that was not there for this long is gone: one that lives asks again within seconds, and is
/// there while it waits for an answer.
const GONE: Duration = Duration::from_secs(60);

/// More are not remembered: an agent that is started again and again has another name each time.
const REMEMBERED: usize = 8;

/// How well it is known when something was said to another server.
const ABOUT: Duration = Duration::from_secs(1);

/// The agents that say that they are one cell, by the names they took when they were started, each with
/// what it asks about.
#[derive(Debug, Clone)]
pub(super) struct Agents<T> {
    /// Who spoke last.
    last: Option<Agent<T>>,
    /// Who spoke before, one after the other. Mostly nobody.
    others: Vec<Agent<T>>,
    /// Who spoke to another server after the last one had come here.
    elsewhere: Option<Elsewhere<T>>,
    /// Whether one has spoken again after another had. One that was merely started again has another
    /// name since, and never says the former.
    are_several: bool,
}

#[derive(Debug, Clone)]
struct Agent<T> {
    name: Uuid,
    topic: T,
    /// When it spoke here first, and last.
    first: Instant,
    last: Instant,
    /// When it was there last, if no question of it is being answered.
    heard: Instant,
    /// How many questions of it are.
    holding: usize,
}

#[derive(Debug, Clone)]
struct Elsewhere<T> {
    name: Uuid,
    topic: T,
    /// When it was first known to have spoken there.
    said: Instant,
    /// When it was there last.
    heard: Instant,
}

impl<T> Agents<T> {
    /// Notes that `name` asks about `topic`. Of one that tells no name nothing can be said.
    pub(super) fn hear(&mut self, name: Option<Uuid>, topic: T, now: Instant) {
        let Some(name) = name else { return };
        self.others.retain(|other| other.name == name || !other.is_gone(now));
        // It may have come from there, and nothing that is gone is waited for.
        let elsewhere = self.elsewhere.take();
        self.elsewhere = elsewhere.filter(|other| other.name != name && !is_gone(other.heard, now));
        match &mut self.last {
            Some(last) if last.name == name => {
                last.comes(topic, now);
                let between = self.elsewhere.as_ref().map(|other| other.said);
                self.are_several |= between.is_some_and(|said| said + ABOUT < now);
            }
            _ => self.take_turns(name, topic, now),
        }
        self.are_several &= !self.others.is_empty() || self.elsewhere.is_some();
    }

    /// Another than the last one speaks.
    fn take_turns(&mut self, name: Uuid, topic: T, now: Instant) {
        let before = self.others.iter().position(|other| other.name == name);
        let agent = match before.map(|place| self.others.remove(place)) {
            Some(mut agent) => {
                self.are_several = true;
                agent.comes(topic, now);
                agent
            }
            None => {
                // What was said elsewhere was said before it came, for all that is known.
                self.elsewhere = None;
                Agent { name, topic, first: now, last: now, heard: now, holding: 1 }
            }
        };
        self.others.extend(self.last.replace(agent));
        if self.others.len() > REMEMBERED {
            self.others.remove(0);
        }
    }

    /// Notes that `name` spoke to another server when it `said` so, and was there last when it was `heard`.
    pub(super) fn meet(&mut self, name: Option<Uuid>, topic: T, said: Instant, heard: Instant) {
        let (Some(name), Some(last)) = (name, &self.last) else { return };
        if name == last.name || said <= last.first + ABOUT {
            return;
        }
        if let Some(other) = self.others.iter_mut().find(|other| other.name == name) {
            // It was here before the last one.
            other.heard = other.heard.max(heard);
            other.topic = topic;
            self.are_several = true;
            return;
        }
        // What is written of it is written anew now and then.
        let first = self.elsewhere.take().filter(|known| known.name == name);
        let said = first.map_or(said, |known| known.said);
        self.elsewhere = Some(Elsewhere { name, topic, said, heard });
    }

    /// A question of `name` is answered.
    pub(super) fn leave(&mut self, name: Option<Uuid>, now: Instant) {
        let Some(name) = name else { return };
        let mut all = self.last.iter_mut().chain(&mut self.others);
        if let Some(agent) = all.find(|agent| agent.name == name) {
            // Who was forgotten meanwhile and came back is counted anew.
            agent.holding = agent.holding.saturating_sub(1);
            agent.heard = now;
        }
    }

    /// Whether another has spoken to another server since the last one spoke here. That one may be gone, and
    /// its question be held here because nobody has said so.
    pub(super) fn has_moved(&self) -> bool {
        let moved = |last: &Agent<T>, other: &Elsewhere<T>| other.said > last.last + ABOUT;
        self.last
            .as_ref()
            .zip(self.elsewhere.as_ref())
            .is_some_and(|(last, other)| moved(last, other))
    }

    /// Whether several live that say so.
    pub(super) fn are_several(&self) -> bool {
        self.are_several
    }

    /// What they ask about.
    pub(super) fn topics(&self) -> impl Iterator<Item = &T> {
        let here = self.last.iter().chain(&self.others).map(|agent| &agent.topic);
        here.chain(self.elsewhere.iter().map(|agent| &agent.topic))
    }
}

impl<T> Agent<T> {
    fn comes(&mut self, topic: T, now: Instant) {
        self.topic = topic;
        (self.last, self.heard) = (now, now);
        self.holding += 1;
    }

    fn is_gone(&self, now: Instant) -> bool {
        self.holding == 0 && is_gone(self.heard, now)
    }
}

fn is_gone(heard: Instant, now: Instant) -> bool {
    now.duration_since(heard) > GONE
}

impl<T> Default for Agents<T> {
    fn default() -> Self {
        Self { last: None, others: Vec::new(), elsewhere: None, are_several: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is known after some have spoken, each by a letter, at so many seconds; none waits for long.
    fn after(spoken: &[(char, u64)]) -> Agents<char> {
        let (mut agents, began) = (Agents::default(), Instant::now());
        for &(letter, second) in spoken {
            let (name, now) = (name(letter), began + Duration::from_secs(second));
            agents.hear(name, letter, now);
            agents.leave(name, now);
        }
        agents
    }

    fn name(letter: char) -> Option<Uuid> {
        Some(Uuid::from_u128(letter.into()))
    }

    #[test]
    fn one_that_speaks_again_after_another_shows_that_there_are_several() {
        let are_several = |spoken: &[_]| after(spoken).are_several();
        assert!(!are_several(&[('a', 0), ('a', 1), ('a', 90)]));
        assert!(!are_several(&[('a', 0), ('b', 1), ('b', 2), ('c', 3)]), "it was started again");
        assert!(are_several(&[('a', 0), ('b', 1), ('a', 2)]));
        assert!(are_several(&[('a', 0), ('b', 1), ('c', 2), ('a', 3)]));
        assert!(are_several(&[('a', 0), ('b', 7200), ('a', 7201)]), "it was cut off for a while");
    }

    #[test]
    fn it_passes_when_one_of_them_has_been_silent() {
        let are_several = |spoken: &[_]| after(spoken).are_several();
        let two = [('a', 0), ('b', 1), ('a', 2), ('b', 3)];
        assert!(are_several(&[&two[..], &[('b', 62)]].concat()));
        assert!(!are_several(&[&two[..], &[('b', 63)]].concat()));
        assert!(
            are_several(&[&two[..], &[('b', 63), ('a', 64), ('b', 65)]].concat()),
            "it is back"
        );
    }

    #[test]
    fn one_that_waits_for_an_answer_is_there() {
        let (mut agents, began) = (Agents::default(), Instant::now());
        let at = |second| began + Duration::from_secs(second);
        for (letter, second) in [('a', 0), ('b', 1), ('a', 2), ('b', 300)] {
            agents.hear(name(letter), letter, at(second));
        }
        assert!(agents.are_several());
        assert_eq!(agents.topics().collect::<String>(), "ba");
        for _ in 0..2 {
            agents.leave(name('a'), at(310));
        }
        agents.hear(name('b'), 'b', at(371));
        assert!(!agents.are_several());
        assert_eq!(agents.topics().collect::<String>(), "b");
    }

    #[test]
    fn one_that_is_started_over_and_over_is_not_remembered_for_ever() {
        let many: Vec<_> = ('a'..='z').zip(0..).collect();
        let agents = after(&many);
        assert_eq!((agents.topics().count(), agents.are_several()), (REMEMBERED + 1, false));
    }

    #[test]
    fn what_another_server_heard_counts_if_one_here_speaks_again_after_it() {
        let began = Instant::now();
        let at = |second| began + Duration::from_secs(second);
        // `letter` spoke elsewhere, at some time after 'a' and then 'b' were here; then `next` does.
        let met = |letter, said, next| {
            let mut agents = after(&[('a', 0), ('b', 10), ('b', 30)]);
            agents.meet(name(letter), letter, at(said), at(35));
            let before = agents.are_several();
            agents.hear(name(next), next, at(40));
            (before, agents.are_several())
        };
        assert_eq!(met('c', 20, 'b'), (false, true));
        assert_eq!(met('a', 20, 'b'), (true, true), "it was here before that one");
        assert_eq!(met('c', 20, 'c'), (false, false), "it was started again there, and came here");
        assert_eq!(met('c', 20, 'd'), (false, false), "and again");
        let mut agents = after(&[('a', 0)]);
        agents.meet(name('b'), 'b', at(5), at(6));
        for second in [10, 20] {
            agents.hear(name('c'), 'c', at(second));
        }
        assert!(!agents.are_several(), "it was started again there, and then here");
        agents.meet(name('b'), 'b', at(25), at(26));
        agents.hear(name('c'), 'c', at(30));
        assert!(agents.are_several(), "and yet both live");
        assert_eq!(met('c', 5, 'b'), (false, false), "it was started again here");
        assert_eq!(met('b', 20, 'b'), (false, false), "it is the same");
    }

    #[test]
    fn one_that_speaks_elsewhere_is_gone_when_that_is_not_written_any_more() {
        let began = Instant::now();
        let at = |second| began + Duration::from_secs(second);
        let mut agents = after(&[('b', 0)]);
        agents.meet(name('c'), 'c', at(20), at(25));
        agents.hear(name('b'), 'b', at(80));
        assert_eq!(
            (agents.are_several(), agents.topics().collect::<String>()),
            (true, "bc".into())
        );
        agents.meet(name('c'), 'd', at(90), at(100));
        agents.hear(name('b'), 'b', at(155));
        assert_eq!(
            (agents.are_several(), agents.topics().collect::<String>()),
            (true, "bd".into())
        );
        agents.hear(name('b'), 'b', at(161));
        assert_eq!(
            (agents.are_several(), agents.topics().collect::<String>()),
            (false, "b".into())
        );
    }
}
