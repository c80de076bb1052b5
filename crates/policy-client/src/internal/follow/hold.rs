//! How long questions are held on the way between this cell and its server. Pure.
//!
//! Proxies end requests that take too long by their clock, often after 30 or 60 seconds, and nobody
//! tells us. So it is learned: two holds cut short halve the next ones, ten that were kept double them.

use std::time::Duration;

/// Shorter holds are not worth their requests; where even these are cut, the server is asked now and
/// then instead.
const SHORTEST: Duration = Duration::from_secs(5);

/// This many cuts in a row are the proxy's doing, and not a server that was restarted.
const CUTS: u32 = 2;

/// After this many holds that were kept, a longer one is tried.
const KEPT: u32 = 10;

/// An answer that comes sooner than this was not held, nor was a question that failed sooner cut.
pub(super) const HELD: Duration = Duration::from_secs(1);

/// Clocks and networks are no better than this.
const SLACK: Duration = Duration::from_millis(500);

/// How long the next question may be held, as far as is known.
#[derive(Debug)]
pub(super) struct Hold {
    full: Duration,
    /// Zero when questions are not to be held.
    now: Duration,
    cuts: u32,
    kept: u32,
}

/// What became of a question that was answered with "nothing has changed".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// It was held as long as the server would.
    Whole,
    /// The server would have, but did not: it is about to stop.
    GivenBack,
    /// It was not held, or not to be.
    Not,
}

impl Kept {
    /// Of a question that was to be held for `asked`, by a server that says it holds for `applied`.
    pub fn of(asked: Option<Duration>, applied: Option<Duration>, took: Duration) -> Self {
        let Some(asked) = asked else { return Self::Not };
        match applied {
            Some(applied) if took + SLACK >= applied.min(asked) => Self::Whole,
            Some(_) => Self::GivenBack,
            None if took < HELD => Self::Not,
            None => Self::Whole,
        }
    }
}

impl Hold {
    /// Begins with `full`, and never exceeds it.
    pub fn new(full: Duration) -> Self {
        Self { full, now: full, cuts: 0, kept: 0 }
    }

    /// What to ask for; `None`: not to be held.
    pub fn wait(&self) -> Option<Duration> {
        (!self.now.is_zero()).then_some(self.now)
    }

    /// A question was held to its end, or answered at once as it was asked to be.
    pub fn kept(&mut self) {
        self.cuts = 0;
        if self.now < self.full {
            self.kept += 1;
        }
        if self.kept == KEPT {
            self.kept = 0;
            self.now = (self.now * 2).max(SHORTEST).min(self.full);
        }
    }

    /// A held question came to nothing before its time.
    pub fn cut(&mut self) {
        self.kept = 0;
        self.cuts += 1;
        if self.cuts == CUTS {
            self.cuts = 0;
            self.now = match self.now {
                now if now <= SHORTEST => Duration::ZERO,
                now => (now / 2).max(SHORTEST),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FULL: Duration = Duration::from_secs(55);

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn one_cut_may_be_a_restart_two_are_a_proxy() {
        let mut hold = Hold::new(FULL);
        hold.cut();
        hold.kept();
        hold.cut();
        assert_eq!(hold.wait(), Some(FULL));
        hold.cut();
        assert_eq!(hold.wait(), Some(FULL / 2));
    }

    #[test]
    fn where_no_hold_survives_questions_are_not_held_until_a_later_try() {
        let mut hold = Hold::new(FULL);
        let mut holds = Vec::new();
        while let Some(wait) = hold.wait() {
            holds.push(wait.as_secs());
            hold.cut();
            hold.cut();
        }
        assert_eq!(holds, [55, 27, 13, 6, 5]);
        (0..KEPT).for_each(|_| hold.kept());
        assert_eq!(hold.wait(), Some(SHORTEST));
        (0..4 * KEPT).for_each(|_| hold.kept());
        assert_eq!(hold.wait(), Some(FULL));
    }

    #[test]
    fn what_became_of_a_hold_is_told_by_the_clock_and_the_servers_word() {
        let kept = |asked, applied, took| Kept::of(asked, applied, Duration::from_secs(took));
        assert_eq!(kept(seconds(55), seconds(55), 55), Kept::Whole);
        assert_eq!(kept(seconds(55), seconds(20), 20), Kept::Whole, "the server holds for less");
        assert_eq!(kept(seconds(55), seconds(55), 20), Kept::GivenBack);
        assert_eq!(kept(seconds(55), seconds(55), 0), Kept::GivenBack);
        assert_eq!(kept(seconds(55), None, 0), Kept::Not, "an old server");
        assert_eq!(kept(seconds(55), None, 20), Kept::Whole, "a proxy dropped the word");
        assert_eq!(kept(None, None, 0), Kept::Not);
    }

    proptest! {
        #[test]
        fn holds_stay_between_the_shortest_and_the_full(days: Vec<bool>) {
            let mut hold = Hold::new(FULL);
            for good in days {
                if good { hold.kept() } else { hold.cut() }
                prop_assert!(hold.wait().is_none_or(|wait| (SHORTEST..=FULL).contains(&wait)));
            }
        }
    }
}
