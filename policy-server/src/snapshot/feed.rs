//! Where readers find the current snapshot, and what keeps it current: the feeder, woken by this
//! server's own writes, and in any case looking at the revision every 200 ms, since other servers may
//! share the database (design §2.2).

mod claims;
mod feeder;
mod updates;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use policy::{Revision, TagLength, Version};
use policy_store::{PolicyStore, StoreError};
use thiserror::Error;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use super::{Snapshot, Touched};
use crate::{metrics::Metrics, waiting::Waiting};
use claims::Claims;
pub(crate) use {claims::Claim, feeder::Feeder};

/// How long a writer waits for the snapshot to hold what it wrote. It takes a millisecond or so;
/// only a database in trouble makes it longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The current snapshot, for readers.
#[derive(Clone)]
pub(crate) struct Feed {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    /// When the last look at the database began that found out how it stands.
    looks: watch::Receiver<Instant>,
    waiting: Arc<Waiting>,
    nudge: Arc<Notify>,
    claims: Arc<Claims>,
    /// When this server wrote last.
    written: Arc<Mutex<Option<Instant>>>,
}

/// Where new snapshots come from.
pub(crate) struct Source {
    snapshots: watch::Sender<Arc<Snapshot>>,
    looks: watch::Sender<Instant>,
    waiting: Arc<Waiting>,
    nudge: Arc<Notify>,
    claims: Arc<Claims>,
    metrics: Metrics,
}

/// The snapshot does not get to a version.
#[derive(Debug, Error)]
#[error("the snapshot did not reach {version} within {} s", PATIENCE.as_secs())]
pub(crate) struct Behind {
    version: Version,
}

/// Takes the first snapshot.
pub(crate) async fn start(
    store: Arc<dyn PolicyStore>,
    tag_length: TagLength,
    metrics: Metrics,
) -> Result<(Feed, Feeder), StoreError> {
    let (feed, source) = joined(Snapshot::of(feeder::whole(&*store).await?, tag_length), metrics);
    Ok((feed, Feeder::new(store, tag_length, source)))
}

/// A feed that begins with `first`, and its source.
pub(crate) fn joined(first: Snapshot, metrics: Metrics) -> (Feed, Source) {
    let (snapshots, current) = watch::channel(Arc::new(first));
    let (looks, last_look) = watch::channel(Instant::now());
    let (waiting, nudge) = (Arc::<Waiting>::default(), Arc::new(Notify::new()));
    let claims = Arc::new(Claims::begin());
    let feed = Feed {
        snapshots: current,
        looks: last_look,
        waiting: waiting.clone(),
        nudge: nudge.clone(),
        claims: claims.clone(),
        written: Arc::default(),
    };
    (feed, Source { snapshots, looks, waiting, nudge, claims, metrics })
}

impl Feed {
    /// The current snapshot.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// Current and future snapshots.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Ends when the snapshot is of `revision`, or of a later one.
    pub(crate) async fn catches_up_with(&self, revision: Revision) {
        let mut snapshots = self.subscribe();
        let reached = |snapshot: &Arc<Snapshot>| snapshot.version().revision >= revision;
        if snapshots.wait_for(reached).await.is_err() {
            // Nobody makes another any more.
            std::future::pending::<()>().await;
        }
    }

    /// Who waits for another.
    pub(crate) fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// How long ago the snapshot was last known to be as the database.
    pub(crate) fn age(&self) -> Duration {
        self.looks.borrow().elapsed()
    }

    /// Waits until the snapshot holds `version`, which this server has just written.
    pub(crate) async fn shows(&self, version: &Version) -> Result<(), Behind> {
        self.wrote();
        self.reaches(version).await
    }

    /// Waits until the snapshot holds `version`, which the store has just told.
    pub(crate) async fn reaches(&self, version: &Version) -> Result<(), Behind> {
        let mut snapshots = self.snapshots.clone();
        if snapshots.borrow().version().includes(version) {
            return Ok(());
        }
        self.nudge.notify_one();
        let shown = snapshots.wait_for(|snapshot| snapshot.version().includes(version));
        match timeout(PATIENCE, shown).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Behind { version: version.clone() }),
        }
    }
}

impl Source {
    /// Returns when somebody cannot wait for the next look at the database.
    pub(crate) async fn nudged(&self) {
        self.nudge.notified().await;
    }

    pub(crate) fn current(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// Puts `next` in the place of the current snapshot, and then wakes those who wait for what is
    /// different.
    pub(crate) fn publish(&self, next: Snapshot, touched: &Touched) {
        self.snapshots.send_replace(Arc::new(next));
        self.metrics.waking(self.waiting.wake(touched));
    }

    /// The snapshot is as the database was at some time after `began`.
    pub(crate) fn looked(&self, began: Instant) {
        self.looks.send_replace(began);
    }
}

#[cfg(test)]
mod tests;
