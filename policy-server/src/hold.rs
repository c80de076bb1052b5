//! Polls that wait: answered when what they ask for changes, or when their time is over (design
//! §2.3). A held poll costs a task and a timer, nothing of the database.

use std::{sync::Arc, time::Duration};

use policy::Version;
use tokio::time::{Instant, sleep_until};

use crate::{server::Server, snapshot::Snapshot};

/// What a poll is answered.
pub(crate) enum Outcome {
    /// What is asked for, at a version the caller does not have.
    Fresh(Arc<Snapshot>, Version),
    /// The caller has the current version.
    Unchanged(Version),
}

/// Answers at once if the caller does not have the version that `version_of` finds in the snapshot;
/// else waits for another, at most for `wait`, and not beyond the server's shutdown.
pub(crate) async fn hold(
    server: &Server,
    known: Option<&Version>,
    wait: Option<Duration>,
    version_of: impl Fn(&Snapshot) -> Version,
) -> Outcome {
    let deadline = Instant::now() + wait.unwrap_or_default();
    let mut snapshots = server.feed.subscribe();
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        let version = version_of(&snapshot);
        if known != Some(&version) {
            return Outcome::Fresh(snapshot, version);
        }
        drop(snapshot);
        let changed = async {
            tokio::select! {
                Ok(()) = snapshots.changed() => true,
                () = sleep_until(deadline) => false,
                () = server.shutdown.cancelled() => false,
            }
        };
        if !server.metrics.held(changed).await {
            return Outcome::Unchanged(version);
        }
    }
}
