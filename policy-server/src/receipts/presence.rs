use std::time::{Duration, Instant};

/// When a cell spoke, and until when it was there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Presence {
    /// When it said first what it says.
    pub said: Instant,
    /// When it was there last, if no question of it is being answered.
    heard: Instant,
    /// How many questions of it are being answered.
    holding: usize,
}

impl Presence {
    /// Its first question comes.
    pub(super) fn begun(now: Instant) -> Self {
        Self { said: now, heard: now, holding: 1 }
    }

    /// A question comes.
    pub(super) fn comes(&mut self, now: Instant) {
        self.holding += 1;
        self.heard = now;
    }

    /// A question is answered.
    pub(super) fn leaves(&mut self, now: Instant) {
        self.holding -= 1;
        self.heard = now;
    }

    /// The cell left a little later than it was seen to.
    pub(super) fn left_later(&mut self, by: Duration) {
        self.heard += by;
    }

    /// Whether a question of it is being answered.
    pub(super) fn is_held(&self) -> bool {
        self.holding > 0
    }

    /// How long the cell has been away.
    pub(super) fn silent(&self, now: Instant) -> Duration {
        if self.is_held() { Duration::ZERO } else { now.duration_since(self.heard) }
    }

    /// Whether the cell was here after it was elsewhere, then.
    pub(super) fn is_later_than(&self, elsewhere: Instant) -> bool {
        self.is_held() || self.heard >= elsewhere
    }
}
