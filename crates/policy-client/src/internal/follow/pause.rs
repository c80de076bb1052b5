//! How long to wait before asking again. Chance is given, so that tests know it.

use std::time::Duration;

use fastrand::Rng;

/// Growing pauses for one thing that fails again and again.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses around `first`, then twice that, and so on up to around `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        let first = first.min(longest);
        Self { first, longest, next: first }
    }

    /// The pause after one more failure.
    pub fn failed(&mut self, chance: &mut Rng) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause.mul_f64(0.5 + chance.f64())
    }

    /// The next failure is the first again.
    pub fn succeeded(&mut self) {
        self.next = self.first;
    }
}

/// Something between the two: cells that were cut off together must not come back together.
pub(super) fn between(least: Duration, most: Duration, chance: &mut Rng) -> Duration {
    least + most.saturating_sub(least).mul_f64(chance.f64())
}
