//! How things stand, read at one moment.

use std::{collections::BTreeMap, time::Duration};

use policy::wire::status::{CellStatus, GroupsStatus};
use policy_store::{PolicyStore, StoreError, StoreFigures};
use tokio::time::timeout;

use super::process::{self, Process};
use crate::server::Server;

/// A database that takes longer to say how its tags are used is not asked again for this page.
const PATIENCE: Duration = Duration::from_secs(2);

/// A cell whose poll is held is heard all the time. One that has been away for this long is not just between
/// two polls, and not on its way back from a server that was started again.
const SILENCE: f64 = 90.0;

/// What the page tells beside what happened.
#[derive(Debug)]
pub(super) struct Readings {
    pub policies: usize,
    pub leases: usize,
    pub revision: u64,
    /// Since the snapshot was last known to be as the database.
    pub snapshot_age: Duration,
    pub cells: BTreeMap<CellState, usize>,
    /// The same of what cells say of security groups.
    pub group_cells: BTreeMap<CellState, usize>,
    /// `None` while the database does not say.
    pub tags: Option<Tags>,
    pub database: StoreFigures,
    /// `None` where the kernel does not say.
    pub process: Option<Process>,
}

/// How many tags there are, by what they are used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tags {
    pub used: usize,
    /// Given back, and not yet free.
    pub quarantined: usize,
    pub free: usize,
}

/// What a cell's last poll says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CellState {
    /// It enforces the newest revision that concerns it.
    Current,
    /// It enforces an older one.
    Behind,
    /// It has not said what it enforces.
    Unknown,
    /// It says that it cannot enforce what it should.
    Failing,
    /// It is not heard of any more.
    Silent,
}

impl Readings {
    pub(super) async fn take(server: &Server) -> Self {
        let snapshot = server.feed.snapshot();
        let cells = server.receipts.of_this_server(&snapshot);
        let groups = server.receipts.groups.of_this_server(&snapshot);
        let highest = server.tag_length.highest() as usize;
        Self {
            policies: snapshot.policy_count(),
            leases: snapshot.leases().count(),
            revision: snapshot.version().revision.0,
            snapshot_age: server.feed.age(),
            cells: count(cells.iter().map(CellState::of)),
            group_cells: count(groups.iter().map(CellState::of_groups)),
            tags: read_tags(&*server.store, highest).await,
            database: server.store.figures(),
            process: process::look(),
        }
    }
}

/// Each state is there, be it with none, so that an alert on it has something to look at.
fn count(cells: impl Iterator<Item = CellState>) -> BTreeMap<CellState, usize> {
    use CellState::{Behind, Current, Failing, Silent, Unknown};
    let mut counts =
        BTreeMap::from([Current, Behind, Unknown, Failing, Silent].map(|state| (state, 0)));
    for state in cells {
        *counts.entry(state).or_default() += 1;
    }
    counts
}

async fn read_tags(store: &dyn PolicyStore, highest: usize) -> Option<Tags> {
    let reading = async {
        let used = store.tags().await?.len();
        let quarantined = store.quarantined_tags().await?;
        let free = highest.saturating_sub(used + quarantined);
        Ok::<_, StoreError>(Tags { used, quarantined, free })
    };
    match timeout(PATIENCE, reading).await {
        Ok(Ok(tags)) => Some(tags),
        Ok(Err(error)) => {
            tracing::warn!(error = service::log::chain(&error), "Could not count the tags.");
            None
        }
        Err(_) => {
            tracing::warn!("The database takes too long to count the tags.");
            None
        }
    }
}

impl CellState {
    fn of(cell: &CellStatus) -> Self {
        let CellStatus { enforced, wanted, silent_seconds, error, .. } = cell;
        Self::by(*enforced, *wanted, *silent_seconds, error.as_ref())
    }

    fn of_groups((groups, silent): &(GroupsStatus, Duration)) -> Self {
        let GroupsStatus { enforced, wanted, spaces: _, error } = groups;
        Self::by(*enforced, *wanted, silent.as_secs_f64(), error.as_ref())
    }

    fn by(enforced: Option<u64>, wanted: u64, silent: f64, error: Option<&String>) -> Self {
        match enforced {
            _ if silent > SILENCE => Self::Silent,
            _ if error.is_some() => Self::Failing,
            None => Self::Unknown,
            Some(enforced) if enforced < wanted => Self::Behind,
            Some(_) => Self::Current,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Behind => "behind",
            Self::Unknown => "unknown",
            Self::Failing => "failing",
            Self::Silent => "silent",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_current_behind_unknown_failing_or_silent() {
        let cell = |enforced, silent_seconds| CellStatus {
            enforced,
            wanted: 7,
            silent_seconds,
            ..CellStatus::default()
        };
        let failing = |silent_seconds| {
            let error = Some("no such table".to_owned());
            CellStatus { error, ..cell(Some(7), silent_seconds) }
        };
        let cells = [
            cell(Some(7), 0.0),
            cell(Some(8), 89.0),
            cell(Some(6), 0.0),
            cell(None, 0.0),
            cell(Some(7), 91.0),
            failing(0.0),
            failing(91.0),
        ];
        let counts: Vec<_> = count(cells.iter().map(CellState::of))
            .into_iter()
            .map(|(state, count)| (state.as_str(), count))
            .collect();
        let expected =
            [("current", 2), ("behind", 1), ("unknown", 1), ("failing", 1), ("silent", 2)];
        assert_eq!(counts, expected);
        assert_eq!(count(std::iter::empty()).values().sum::<usize>(), 0);
        assert_eq!(count(std::iter::empty()).len(), 5, "none is worth saying");
    }
}
