//! Cells that say they have a version which this server's snapshot has not (design §2.3). Mostly
//! another server told them a moment earlier. If not, the database was restored from a backup, and
//! what they have is of a past that never comes.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use policy::Version;
use tokio::time::{Instant, timeout};

use super::Feed;
use crate::snapshot::Snapshot;

/// How long a cell's poll waits until the database was looked at, or has begun another life.
const PATIENCE: Duration = Duration::from_secs(2);

/// A backup is restored while no server runs, so what cells remember of the time before is believed
/// for so long after the start of one.
const BELIEVED: Duration = Duration::from_secs(600);

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The snapshot is as late by now, or of another life.
    Settled,
    /// The database was looked at since, and is behind what is claimed.
    Refuted,
    /// The database could not be looked at.
    Open,
}

pub(super) struct Claims {
    began: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The latest version that was claimed and the database has not.
    latest: Option<Version>,
    /// Whether a life was ended for such a claim. One cell in error must not do so time and again.
    used: bool,
    warned: bool,
}

impl Feed {
    /// Finds out what is true of `claimed`, which is of the snapshot's life and later than it.
    pub(crate) async fn examine(&self, claimed: &Version) -> Claim {
        let came = Instant::now();
        self.nudge.notify_one();
        let mut looks = self.looks.clone();
        let looked = timeout(PATIENCE, looks.wait_for(|began| *began > came)).await;
        let looked = looked.is_ok_and(|looked| looked.is_ok());
        if settles(&self.snapshot(), claimed) {
            return Claim::Settled;
        }
        if !looked {
            return Claim::Open;
        }
        if self.claims.submit(claimed) {
            self.nudge.notify_one();
            let mut snapshots = self.snapshots.clone();
            let settled = snapshots.wait_for(|snapshot| settles(snapshot, claimed));
            if timeout(PATIENCE, settled).await.is_ok_and(|settled| settled.is_ok()) {
                return Claim::Settled;
            }
        }
        if self.claims.is_first_warning() {
            tracing::warn!(
                claimed.version = %claimed,
                version = %self.snapshot().version(),
                "A cell has a later version than the database. If a backup was restored, run \
                 `policy-server restored`."
            );
        }
        Claim::Refuted
    }
}

/// Whether `snapshot` is not behind `claimed`.
fn settles(snapshot: &Snapshot, claimed: &Version) -> bool {
    let version = snapshot.version();
    version.life != claimed.life || version.revision >= claimed.revision
}

impl Claims {
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), state: Mutex::default() }
    }

    /// Whether another life is going to begin because of `claimed`.
    fn submit(&self, claimed: &Version) -> bool {
        self.with(|state| {
            if state.used || self.began.elapsed() > BELIEVED {
                return false;
            }
            let later = |held: &Version| claimed.life != held.life || claimed.includes(held);
            if state.latest.as_ref().is_none_or(later) {
                state.latest = Some(claimed.clone());
            }
            true
        })
    }

    /// The claim for which another life is to begin.
    pub(super) fn latest(&self) -> Option<Version> {
        self.with(|state| state.latest.clone())
    }

    /// The claim has been dealt with. If another life has begun because of it, there is no second one.
    pub(super) fn close(&self, renewed: bool) {
        self.with(|state| {
            state.latest = None;
            state.used |= renewed;
        });
    }

    fn is_first_warning(&self) -> bool {
        self.with(|state| !std::mem::replace(&mut state.warned, true))
    }

    /// A panic elsewhere leaves the state whole, as it is replaced in one go.
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
