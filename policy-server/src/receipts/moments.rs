use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use policy::Revision;

/// Cells confirm within moments, so older ones need not be remembered.
const REMEMBERED: usize = 1024;

/// When this server came to know of the newest revisions.
#[derive(Default)]
pub(super) struct Moments(Mutex<VecDeque<(Revision, Instant)>>);

impl Moments {
    /// Everything up to `revision` is known. A lower one than before begins the story anew.
    pub(super) fn note(&self, revision: Revision, now: Instant) {
        let mut moments = self.lock();
        if moments.back().is_some_and(|(last, _)| *last > revision) {
            moments.clear();
        }
        if moments.back().is_none_or(|(last, _)| *last < revision) {
            moments.push_back((revision, now));
        }
        if moments.len() > REMEMBERED {
            moments.pop_front();
        }
    }

    /// For how long `revision` has been known; `None` if that is forgotten. The first that was noted
    /// was known before, nobody knows for how long.
    pub(super) fn since(&self, revision: Revision, now: Instant) -> Option<Duration> {
        let moments = self.lock();
        let position = moments.partition_point(|(known, _)| *known < revision);
        if position == 0 {
            return None;
        }
        let (_, noted) = moments.get(position)?;
        Some(now.duration_since(*noted))
    }

    /// No entry is ever half-written.
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Revision, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_known_since_the_first_snapshot_that_holds_it() {
        let (moments, began) = (Moments::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        for (revision, second) in [(3, 0), (5, 10), (5, 11), (9, 20)] {
            moments.note(Revision(revision), at(second));
        }
        let since = |revision| moments.since(Revision(revision), at(30)).map(|time| time.as_secs());
        assert_eq!(
            [3, 4, 5, 6, 9, 10].map(since),
            [None, Some(20), Some(20), Some(10), Some(10), None]
        );
        moments.note(Revision(1), at(40));
        assert_eq!(since(1), None, "another story");
    }
}
