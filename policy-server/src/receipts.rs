//! What each cell says its kernel enforces (design §2.3). In memory: a cell says it again with every
//! poll, so a server that starts knows all of them within a minute.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use policy::{
    AppGuid, Revision, Version,
    wire::status::{CellStatus, Status},
};
use policy_store::CellsReport;

use crate::snapshot::{Snapshot, Subject};

/// A cell that was silent for this long is not a straggler any more; it is gone.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// How long after a start cells may still be on their way back: longer than an agent pauses between
/// two attempts.
const RETURN: Duration = Duration::from_secs(10);

/// The receipts this server got, by the names cells give themselves.
pub(crate) struct Receipts {
    cells: Mutex<BTreeMap<String, Receipt>>,
    started: Instant,
    /// Whether cells poll this process at all.
    are_here: bool,
}

struct Receipt {
    enforced: Option<Version>,
    subject: Subject,
    heard: Instant,
    holding: usize,
}

/// A poll of a cell that is being answered; the cell is being heard as long as this lives.
pub(crate) struct Hearing<'a> {
    receipts: &'a Receipts,
    cell: String,
}

impl Receipts {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { cells: Mutex::default(), started: Instant::now(), are_here: true }
    }

    /// Those of a process that cells do not poll: never any, and what cells enforce is never known.
    pub(crate) fn of_cells_elsewhere() -> Self {
        Self { are_here: false, ..Self::new() }
    }

    /// Notes that `cell` asks for `subject` and enforces `enforced` of it. Without a version it
    /// claims nothing: what it enforced of other apps says nothing about these.
    pub(crate) fn hear(
        &self,
        cell: &str,
        subject: &Subject,
        enforced: Option<&Version>,
    ) -> Hearing<'_> {
        let now = Instant::now();
        let mut receipts = self.lock();
        receipts.retain(|_, receipt| !receipt.is_forgotten(now));
        let holding = receipts.get(cell).map_or(0, |receipt| receipt.holding);
        let receipt = Receipt {
            enforced: enforced.cloned(),
            subject: subject.clone(),
            heard: now,
            holding: holding + 1,
        };
        receipts.insert(cell.to_owned(), receipt);
        Hearing { receipts: self, cell: cell.to_owned() }
    }

    /// The cells that ask about one of `apps`, or all, beside what `snapshot` wants of them.
    pub(crate) fn status(&self, snapshot: &Snapshot, apps: Option<&BTreeSet<AppGuid>>) -> Status {
        let now = Instant::now();
        let concerned = |receipt: &Receipt| apps.is_none_or(|apps| receipt.subject.touches(apps));
        let known = self.lock();
        let complete = self.is_complete(known.len(), snapshot, now);
        let cells = known
            .iter()
            .filter(|(_, receipt)| !receipt.is_forgotten(now) && concerned(receipt))
            .map(|(cell, receipt)| receipt.status(cell, snapshot, now))
            .collect();
        let Version { life, revision } = snapshot.version();
        Status { life: life.as_str().to_owned(), revision: revision.0, complete, cells }
    }

    /// What all cells of this server have confirmed (design §2.4). A cell that enforces what it asks
    /// for is as good as one that enforces everything: nothing since then concerned it.
    pub(crate) fn confirmed(&self, snapshot: &Snapshot) -> CellsReport {
        let now = Instant::now();
        let cells = self.lock();
        let lowest = cells
            .values()
            .filter(|receipt| !receipt.is_forgotten(now))
            .map(|receipt| receipt.confirmed(snapshot))
            .min();
        lowest.map_or(CellsReport::Silent, CellsReport::Confirmed)
    }

    /// A server that has just started has not heard of the cells that poll it. All are back when there
    /// are as many as hold leases; where cells hold none, when they have had the time. A cell that
    /// holds a lease and keeps silent may enforce anything, so it is waited for as long as if this
    /// server had heard of it.
    fn is_complete(&self, heard: usize, snapshot: &Snapshot, now: Instant) -> bool {
        if !self.are_here {
            return false;
        }
        let up = now.duration_since(self.started);
        match snapshot.leases().count() {
            0 => up >= RETURN,
            leased => heard >= leased || up > FORGET_AFTER,
        }
    }

    /// A panic elsewhere leaves the map whole, since no entry is ever half-written.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Receipt>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Receipt {
    fn is_forgotten(&self, now: Instant) -> bool {
        self.holding == 0 && now.duration_since(self.heard) > FORGET_AFTER
    }

    /// The revision the cell enforces of what it asks for. One that is not in the snapshot, of another
    /// life or of before a backup was restored, proves nothing. If the snapshot is only late, it counts
    /// in a moment.
    fn enforced(&self, snapshot: &Snapshot) -> Option<&Version> {
        self.enforced.as_ref().filter(|enforced| snapshot.version().includes(enforced))
    }

    /// Everything up to here is in force on the cell, as far as it concerns it.
    fn confirmed(&self, snapshot: &Snapshot) -> Revision {
        match self.enforced(snapshot) {
            Some(enforced) if enforced.includes(&snapshot.version_of(&self.subject)) => {
                snapshot.version().revision
            }
            Some(enforced) => enforced.revision,
            None => Revision::default(),
        }
    }

    fn status(&self, cell: &str, snapshot: &Snapshot, now: Instant) -> CellStatus {
        let enforced = self.enforced(snapshot);
        let Self { enforced: _, subject, heard, holding } = self;
        let wanted = snapshot.version_of(subject);
        let silent = if *holding > 0 { Duration::ZERO } else { now.duration_since(*heard) };
        CellStatus {
            cell: cell.to_owned(),
            enforced: enforced.map(|enforced| enforced.revision.0),
            wanted: wanted.revision.0,
            silent_seconds: silent.as_secs_f64(),
            apps: snapshot.apps_of(subject),
        }
    }
}

impl Drop for Hearing<'_> {
    fn drop(&mut self) {
        if let Some(receipt) = self.receipts.lock().get_mut(&self.cell) {
            receipt.holding -= 1;
            receipt.heard = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use policy::{Life, TagLength};
    use policy_store::State;

    use super::*;

    fn version(revision: u64) -> Version {
        Version { life: Life::new("life").unwrap(), revision: Revision(revision) }
    }

    fn snapshot(revision: u64) -> Snapshot {
        with_leases(revision, vec![])
    }

    fn with_leases(revision: u64, leases: Vec<policy::Lease>) -> Snapshot {
        let version = version(revision);
        let state = State {
            compacted: version.revision,
            version,
            policies: vec![],
            leases,
            security_groups: vec![],
            log: vec![],
        };
        Snapshot::of(state, TagLength::DEFAULT)
    }

    fn apps(names: &[&str]) -> BTreeSet<AppGuid> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn a_cell_is_known_by_its_last_word() {
        let receipts = Receipts::new();
        let subject = Subject::Apps(apps(&["a", "b"]));
        drop(receipts.hear("cell-1", &subject, None));
        assert_eq!(receipts.status(&snapshot(5), None).cells[0].enforced, None);
        let hearing = receipts.hear("cell-1", &subject, Some(&version(4)));
        let status = receipts.status(&snapshot(5), None);
        assert_eq!((status.life.as_str(), status.revision), ("life", 5));
        let [cell] = &status.cells[..] else { panic!("{status:?}") };
        assert_eq!((cell.enforced, cell.wanted, cell.apps), (Some(4), 5, 2));
        assert_eq!(cell.silent_seconds, 0.0, "its poll is being held");
        drop(hearing);
        assert!(receipts.status(&snapshot(5), None).cells[0].silent_seconds > 0.0);
    }

    #[test]
    fn a_server_knows_when_it_may_not_know_every_cell_yet() {
        let lease = |host: u8| {
            let subnet = format!("10.255.{host}.0/24").parse().unwrap();
            policy::Lease::new([10, 0, 16, host].into(), subnet)
        };
        let snapshot = with_leases(5, vec![lease(1), lease(2)]);
        let mut receipts = Receipts::new();
        drop(receipts.hear("one", &Subject::Apps(apps(&["a"])), None));
        assert!(!receipts.status(&snapshot, None).complete);
        receipts.started -= RETURN;
        assert!(!receipts.status(&snapshot, None).complete, "the other may be cut off");
        drop(receipts.hear("two", &Subject::Apps(apps(&["b"])), None));
        assert!(receipts.status(&snapshot, Some(&apps(&["a"]))).complete, "all leases are back");

        let mut receipts = Receipts::new();
        let without_leases = self::snapshot(5);
        assert!(!receipts.status(&without_leases, None).complete);
        receipts.started -= RETURN;
        assert!(receipts.status(&without_leases, None).complete, "they have had the time");
        receipts.started -= FORGET_AFTER;
        assert!(receipts.status(&snapshot, None).complete, "whoever is still away is gone");
    }

    #[test]
    fn only_cells_that_ask_about_an_app_are_told_of() {
        let receipts = Receipts::new();
        drop(receipts.hear("two", &Subject::Apps(apps(&["a", "b"])), None));
        drop(receipts.hear("all", &Subject::Everything, None));
        drop(receipts.hear("none", &Subject::Apps(apps(&[])), None));
        let cells = |asked: Option<BTreeSet<AppGuid>>| -> Vec<String> {
            let status = receipts.status(&snapshot(5), asked.as_ref());
            status.cells.into_iter().map(|cell| cell.cell).collect()
        };
        assert_eq!(cells(None), ["all", "none", "two"]);
        assert_eq!(cells(Some(apps(&["b", "x"]))), ["all", "two"]);
        assert_eq!(cells(Some(apps(&["x"]))), ["all"]);
    }

    #[test]
    fn revisions_of_another_life_are_no_receipt() {
        let receipts = Receipts::new();
        let foreign = Version { life: Life::new("other").unwrap(), ..version(9) };
        drop(receipts.hear("cell-1", &Subject::Everything, Some(&foreign)));
        assert_eq!(receipts.status(&snapshot(5), None).cells[0].enforced, None);
    }

    #[test]
    fn revisions_that_are_still_to_come_are_no_receipt() {
        let receipts = Receipts::new();
        drop(receipts.hear("cell-1", &Subject::Everything, Some(&version(9))));
        let enforced = |revision| receipts.status(&snapshot(revision), None).cells[0].enforced;
        assert_eq!((enforced(5), enforced(8), enforced(9)), (None, None, Some(9)));
    }

    #[test]
    fn cells_confirm_what_the_slowest_of_them_enforces() {
        let receipts = Receipts::new();
        assert_eq!(receipts.confirmed(&snapshot(5)), CellsReport::Silent);
        let confirmed = |revision| CellsReport::Confirmed(Revision(revision));
        drop(receipts.hear("one", &Subject::Everything, Some(&version(5))));
        assert_eq!(receipts.confirmed(&snapshot(5)), confirmed(5));
        assert_eq!(receipts.confirmed(&snapshot(7)), confirmed(5), "7 concerns it");
        drop(receipts.hear("two", &Subject::Everything, Some(&version(6))));
        assert_eq!(receipts.confirmed(&snapshot(6)), confirmed(5));
        drop(receipts.hear("one", &Subject::Everything, Some(&version(6))));
        assert_eq!(receipts.confirmed(&snapshot(6)), confirmed(6));
        drop(receipts.hear("new", &Subject::Everything, None));
        assert_eq!(receipts.confirmed(&snapshot(6)), confirmed(0), "it may enforce anything");
    }
}
