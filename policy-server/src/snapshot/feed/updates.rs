//! The time of the last update, which agents of the existing system ask for every few seconds, all of
//! them (spec/policy-server.md §5.2): told as of the last look at the database, which asks for it anyway.

use std::{sync::PoisonError, time::Duration};

use policy_store::PolicyStore;
use tokio::time::Instant;

use super::Feed;

/// A look that is older than this says that the database is away.
const STALE: Duration = Duration::from_secs(2);

impl Feed {
    /// When policies were last created or deleted, in nanoseconds since 1970, as of the last look at the
    /// database; `None` if that was long ago, or before this server's last write: ask the store then.
    pub(crate) fn last_updated(&self, store: &dyn PolicyStore) -> Option<i64> {
        store.last_updated_seen().filter(|_| self.has_looked_since_writing())
    }

    /// Notes that this server has written. Whoever did asks for the time of the last update next, and
    /// it moves even if nothing else does.
    pub(super) fn wrote(&self) {
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn has_looked_since_writing(&self) -> bool {
        let looked = *self.looks.borrow();
        let written = *self.written.lock().unwrap_or_else(PoisonError::into_inner);
        looked.elapsed() <= STALE && written.is_none_or(|written| written < looked)
    }
}
