//! How long to wait before asking again.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// The first pause after a failure.
const FIRST: Duration = Duration::from_secs(1);

/// Growing pauses for one thing that is tried again and again.
#[derive(Debug)]
pub(crate) struct Pace {
    longest: Duration,
    next: Duration,
}

impl Pace {
    /// Pauses from a second up to `longest`.
    pub(crate) fn up_to(longest: Duration) -> Self {
        Self { longest, next: FIRST.min(longest) }
    }

    /// The pause after one more failure.
    pub(crate) fn failed(&mut self) -> Duration {
        let pause = self.next;
        self.next = (self.next * 2).min(self.longest);
        jittered(pause)
    }

    /// The next failure is the first again.
    pub(crate) fn succeeded(&mut self) {
        self.next = FIRST.min(self.longest);
    }
}

/// `pause`, up to a tenth longer: cells that lost the server together must not come back together.
pub(crate) fn jittered(pause: Duration) -> Duration {
    // A new `RandomState` is random by itself; there is nothing to hash.
    let random = RandomState::new().hash_one(()) % 100;
    pause + pause * u32::try_from(random).expect("it is below 100") / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_start_over_after_success() {
        let mut pace = Pace::up_to(Duration::from_secs(5));
        let mut seconds = || pace.failed().as_millis() / 1100 + 1;
        assert_eq!([seconds(), seconds(), seconds(), seconds()], [1, 2, 4, 5]);
        pace.succeeded();
        assert!(pace.failed() < Duration::from_millis(1100));
    }
}
