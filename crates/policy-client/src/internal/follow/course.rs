//! Which server is asked next, and how soon after a failure. Pure.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::pause::{Backoff, between};

/// The first pause after every server has failed.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause before the next server is tried: all that hung off the one that is gone come at
/// once.
const HANDOVER: Duration = Duration::from_millis(250);

/// How long a cell stays with another server before it returns to its own, at least and at most. Its
/// own may have been away for a restart only, and others must not carry its cells for ever.
const ABROAD: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(600));

/// The servers in their order, and where we are.
#[derive(Debug)]
pub(super) struct Course {
    servers: usize,
    /// Where this cell belongs.
    home: usize,
    at: usize,
    /// Since an answer.
    failures: usize,
    backoff: Backoff,
    /// When to go back, while away.
    returns: Option<Instant>,
}

impl Course {
    /// Begins at `home`, one of `servers`.
    pub fn new(servers: usize, home: usize, longest_pause: Duration) -> Self {
        let backoff = Backoff::new(FIRST_PAUSE, longest_pause);
        Self { servers, home, at: home, failures: 0, backoff, returns: None }
    }

    /// Who is asked now.
    pub fn server(&mut self, now: Instant) -> usize {
        if self.returns.is_some_and(|returns| returns <= now) {
            self.returns = None;
            self.at = self.home;
        }
        self.at
    }

    /// Whether some server has not failed since the last answer.
    pub fn is_open(&self) -> bool {
        self.failures < self.servers
    }

    /// The server is there.
    pub fn answered(&mut self) {
        self.failures = 0;
        self.backoff.succeeded();
    }

    /// It is not, or is about to leave: the next one's turn, after this pause. When all have failed in
    /// turn, pauses grow.
    pub fn failed(&mut self, now: Instant, chance: &mut Rng) -> Duration {
        self.failures += 1;
        self.at = (self.at + 1) % self.servers;
        self.returns = match self.returns {
            _ if self.at == self.home => None,
            None => Some(now + between(ABROAD.0, ABROAD.1, chance)),
            set => set,
        };
        if self.failures.is_multiple_of(self.servers) {
            self.backoff.failed(chance)
        } else {
            between(Duration::ZERO, HANDOVER, chance)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(5);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_server_that_answers_is_kept() {
        let (mut course, now) = (Course::new(3, 1, LONGEST), Instant::now());
        for hours in 0..48 {
            assert_eq!(course.server(now + seconds(3600 * hours)), 1);
            course.answered();
        }
    }

    #[test]
    fn the_next_server_is_tried_at_once_and_after_a_round_pauses_grow() {
        let (mut course, now, mut chance) =
            (Course::new(2, 1, LONGEST), Instant::now(), Rng::with_seed(1));
        let mut least = Duration::ZERO;
        for round in 0..8 {
            assert_eq!(course.server(now), 1);
            assert!(course.failed(now, &mut chance) <= HANDOVER);
            assert_eq!((course.server(now), course.is_open()), (0, round == 0));
            let pause = course.failed(now, &mut chance);
            assert!(pause >= least && pause <= LONGEST.mul_f64(1.5), "round {round}: {pause:?}");
            least = (FIRST_PAUSE * 2_u32.pow(round)).min(LONGEST / 2);
        }
        course.answered();
        assert!(course.is_open());
        course.failed(now, &mut chance);
        assert!(course.failed(now, &mut chance) <= FIRST_PAUSE.mul_f64(1.5), "starts over");
    }

    #[test]
    fn a_cell_returns_to_its_own_server_after_a_while() {
        let (mut course, now, mut chance) =
            (Course::new(2, 0, LONGEST), Instant::now(), Rng::with_seed(1));
        course.failed(now, &mut chance);
        course.answered();
        assert_eq!(course.server(now + ABROAD.0 - seconds(1)), 1);
        assert_eq!(course.server(now + ABROAD.1), 0);
        course.answered();
        assert_eq!(course.server(now + ABROAD.1 * 9), 0);
    }

    #[test]
    fn the_only_server_is_asked_again_after_growing_pauses() {
        let (mut course, now, mut chance) =
            (Course::new(1, 0, LONGEST), Instant::now(), Rng::with_seed(1));
        let pauses: Vec<_> = (0..9).map(|_| course.failed(now, &mut chance)).collect();
        assert!(pauses[0] < FIRST_PAUSE * 2 && pauses[8] >= LONGEST / 2, "{pauses:?}");
        assert_eq!(course.server(now), 0);
    }
}
