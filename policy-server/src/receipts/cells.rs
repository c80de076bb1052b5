use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use policy::{
    AppGuid, Revision, Version,
    wire::{
        status::{CellStatus, PoliciesStatus, PolicyStatus, Status},
        v1::PolicyBody,
    },
};

use super::{
    FORGET_AFTER, RETURN, Word,
    here::{Here, Receipt},
    rows::{NOBODY, Row, Rows},
};
use crate::snapshot::{Entry, Snapshot, Subject};

/// How many of the cells a policy waits for are named.
const NAMED: usize = 10;

/// A cell, by its last word to whichever server.
#[derive(Debug)]
pub(super) struct Cell {
    pub cell: String,
    server: Option<String>,
    word: Word,
    said: Duration,
    silent: Duration,
    /// Whether it is this server that must vouch for it.
    is_ours: bool,
    /// Whether it may have said something else a moment ago that was lost.
    is_in_doubt: bool,
    /// Whether it may have said something else, however long ago, that was lost.
    may_lack_the_last: bool,
}

/// The last words of all cells, at one moment.
#[derive(Debug)]
pub(crate) struct Cells {
    /// Ordered by name.
    pub(super) cells: Vec<Cell>,
    /// How many hold a lease and are not gone; `None` if the database does not tell, nor what cells said
    /// to other servers.
    pub(super) leased: Option<usize>,
    /// Whether cells poll this process.
    pub(super) are_here: bool,
    /// For how long this process has been up.
    pub(super) up: Duration,
}

impl Cells {
    /// The cells that ask about one of `apps`, or all, beside what `snapshot` wants of them.
    pub(crate) fn status(self, snapshot: &Snapshot, apps: Option<&BTreeSet<AppGuid>>) -> Status {
        let (life, revision) = life_and_revision(snapshot);
        let complete = self.is_complete();
        let concerned = self.cells.into_iter().filter(|cell| cell.is_concerned(apps));
        let cells = concerned.map(|cell| cell.status(snapshot)).collect();
        Status { life, revision, complete, cells }
    }

    /// How far the policies of `entries` have got.
    pub(crate) fn policies(self, snapshot: &Snapshot, entries: &[Arc<Entry>]) -> PoliciesStatus {
        let (life, revision) = life_and_revision(snapshot);
        let index = Index::of(&self.cells, entries, snapshot);
        let policies = entries.iter().map(|entry| index.status(entry)).collect();
        PoliciesStatus { life, revision, complete: self.is_complete(), policies }
    }

    /// The few cells that are furthest behind `snapshot`, and what each has confirmed.
    pub(crate) fn furthest_behind(&self, snapshot: &Snapshot) -> Vec<String> {
        let confirmed = self.cells.iter().map(|cell| (cell.confirmed(snapshot), &cell.cell));
        let mut behind: Vec<_> =
            confirmed.filter(|(confirmed, _)| *confirmed < snapshot.version().revision).collect();
        behind.sort_unstable();
        let told = |(confirmed, cell): &(Revision, &String)| match confirmed.0 {
            0 => format!("{cell} (nothing)"),
            revision => format!("{cell} (revision {revision})"),
        };
        behind.iter().take(NAMED).map(told).collect()
    }

    /// Whether there can be no other cell, and none that asks about other apps than is known. All are
    /// there when there are as many as hold leases: one that holds a lease and keeps silent may enforce
    /// anything, so it is waited for as long as if it had been heard of: until it has neither spoken nor
    /// renewed its lease for [`FORGET_AFTER`]. Where cells hold none, those
    /// that some server has ever heard of are there at once, and the others when they have had the time.
    /// A process that no cell polls, and that knows of none, knows nothing: they may poll a server that
    /// keeps what they say to itself.
    fn is_complete(&self) -> bool {
        let knows_none = self.cells.is_empty() && !self.are_here;
        if knows_none || self.cells.iter().any(|cell| cell.is_in_doubt) {
            return false;
        }
        match self.leased {
            None => false,
            Some(0) => self.up >= RETURN,
            Some(leased) => self.cells.len() >= leased || self.up > FORGET_AFTER,
        }
    }
}

/// The last words of all cells, by name.
///
/// `server` is this process, and it was `started` then.
pub(super) fn all(
    here: &Here,
    rows: &Rows,
    server: &str,
    started: Instant,
    now: Instant,
) -> Vec<Cell> {
    let mut last: BTreeMap<&str, Cell> = BTreeMap::new();
    for (cell, row) in rows.iter() {
        let is_in_doubt = row.server != server && row.is_in_doubt(started, now);
        let may_lack_the_last = rows.may_lack_the_last_of(row, now);
        last.insert(
            cell,
            Cell { is_in_doubt, may_lack_the_last, ..Cell::elsewhere(cell, row, now) },
        );
    }
    for (cell, receipt) in here.cells() {
        let row = rows.of(cell).filter(|row| row.server != server);
        if row.is_none_or(|row| receipt.presence.is_later_than(row.heard)) {
            let may_lack_the_last =
                receipt.has_left(now) && rows.may_lack_the_last(receipt.presence.silent(now));
            last.insert(cell, Cell { may_lack_the_last, ..Cell::here(cell, receipt, server, now) });
        }
    }
    last.into_values().filter(|cell| cell.silent <= FORGET_AFTER).collect()
}

/// The cells that `server` heard last: not those that are known to speak to another since.
pub(super) fn of_this(here: &Here, rows: &Rows, server: &str, now: Instant) -> Vec<Cell> {
    let heard = here.cells().iter().filter(|(cell, receipt)| {
        let elsewhere = rows.of(cell).filter(|row| row.server != server && !row.is_orphan);
        elsewhere.is_none_or(|row| receipt.presence.is_later_than(row.heard))
    });
    heard.map(|(cell, receipt)| Cell::here(cell, receipt, server, now)).collect()
}

/// What all cells this server vouches for have confirmed; `None` if there are none.
pub(super) fn confirmed(cells: &[Cell], snapshot: &Snapshot) -> Option<Revision> {
    cells.iter().filter(|cell| cell.is_ours).map(|cell| cell.confirmed(snapshot)).min()
}

impl Cell {
    pub(super) fn here(cell: &str, receipt: &Receipt, server: &str, now: Instant) -> Self {
        Self {
            cell: cell.to_owned(),
            server: Some(server.to_owned()),
            word: receipt.word.clone(),
            said: now.duration_since(receipt.presence.said),
            silent: receipt.presence.silent(now),
            is_ours: true,
            is_in_doubt: false,
            may_lack_the_last: false,
        }
    }

    fn elsewhere(cell: &str, row: &Row, now: Instant) -> Self {
        let Row { server, word, said, heard, is_orphan, .. } = row;
        Self {
            cell: cell.to_owned(),
            server: (server != NOBODY).then(|| server.clone()),
            word: word.clone(),
            said: now.duration_since(*said),
            silent: now.duration_since(*heard),
            // Nobody else does.
            is_ours: *is_orphan,
            is_in_doubt: false,
            may_lack_the_last: false,
        }
    }

    /// What it has confirmed. If its last word may be lost, it may have asked about more apps since, and
    /// enforce of those what stood at any time after what is known: not more than that is confirmed.
    fn confirmed(&self, snapshot: &Snapshot) -> Revision {
        if self.may_lack_the_last {
            self.word.enforced(snapshot).unwrap_or_default()
        } else {
            self.word.confirmed(snapshot)
        }
    }

    /// Whether it asks about one of `apps`, or whoever asks is not particular.
    pub(super) fn is_concerned(&self, apps: Option<&BTreeSet<AppGuid>>) -> bool {
        apps.is_none_or(|apps| self.word.subject.touches(apps))
    }

    pub(super) fn status(self, snapshot: &Snapshot) -> CellStatus {
        let (enforced, wanted) = (self.word.enforced(snapshot), self.word.wanted(snapshot));
        let Self { cell, server, word, said, silent, .. } = self;
        let Word { subject, enforced: _, backend, error, agent: _ } = word;
        CellStatus {
            cell,
            server,
            enforced: enforced.map(|revision| revision.0),
            enforced_seconds: enforced.map(|_| said.as_secs_f64()),
            wanted: wanted.0,
            silent_seconds: silent.as_secs_f64(),
            apps: snapshot.apps_of(&subject),
            backend: backend.map(|backend| backend.as_str().to_owned()),
            error,
            security_groups: None,
        }
    }
}

/// Which cells ask about which app of some policies, and how far each is.
pub(super) struct Index<'a> {
    cells: &'a [Cell],
    snapshot: &'a Snapshot,
    /// What each enforces, and the newest that concerns it, once somebody asks: to find that out takes
    /// a look at each of a cell's apps.
    standings: Vec<OnceCell<(Option<Revision>, Revision)>>,
    everything: Vec<usize>,
    by_app: HashMap<&'a AppGuid, Vec<usize>>,
}

impl<'a> Index<'a> {
    pub(super) fn of(cells: &'a [Cell], entries: &'a [Arc<Entry>], snapshot: &'a Snapshot) -> Self {
        let ends = |entry: &'a Arc<Entry>| {
            let policy = &entry.tagged.policy;
            [(&policy.source, vec![]), (&policy.destination, vec![])]
        };
        let mut index = Self {
            cells,
            snapshot,
            standings: cells.iter().map(|_| OnceCell::new()).collect(),
            everything: vec![],
            by_app: entries.iter().flat_map(ends).collect(),
        };
        for (number, Cell { word, .. }) in cells.iter().enumerate() {
            match &*word.subject {
                Subject::Everything => index.everything.push(number),
                Subject::Apps(apps) => index.note(number, apps),
            }
        }
        index
    }

    /// Notes for which apps a cell asks that asks for `apps`.
    fn note(&mut self, number: usize, apps: &BTreeSet<AppGuid>) {
        // Whichever are fewer are looked up among the others.
        if self.by_app.len() < apps.len() {
            let asked = self.by_app.iter_mut().filter(|(app, _)| apps.contains(app));
            asked.for_each(|(_, numbers)| numbers.push(number));
        } else {
            for app in apps {
                if let Some(numbers) = self.by_app.get_mut(app) {
                    numbers.push(number);
                }
            }
        }
    }

    /// How far a policy has got.
    pub(super) fn status(&self, entry: &Arc<Entry>) -> PolicyStatus {
        let policy = &entry.tagged.policy;
        let ends = [&policy.source, &policy.destination].map(|app| self.by_app.get(app));
        let mut relevant: Vec<usize> = ends.into_iter().flatten().flatten().copied().collect();
        relevant.extend(&self.everything);
        relevant.sort_unstable();
        relevant.dedup();
        let waiting: Vec<usize> = relevant
            .iter()
            .copied()
            .filter(|number| !self.enforces(*number, entry.since))
            .collect();
        let named = waiting.iter().take(NAMED).map(|number| self.cells[*number].cell.clone());
        let PolicyBody { source, destination } = PolicyBody::of(policy);
        PolicyStatus {
            source,
            destination,
            revision: entry.since.0,
            relevant: relevant.len(),
            enforced: relevant.len() - waiting.len(),
            waiting: named.collect(),
        }
    }

    /// Whether a cell enforces what came with revision `since`. One that has nothing newer to enforce
    /// than it does is as good.
    fn enforces(&self, number: usize, since: Revision) -> bool {
        let (enforced, wanted) = *self.standings[number].get_or_init(|| {
            let word = &self.cells[number].word;
            (word.enforced(self.snapshot), word.wanted(self.snapshot))
        });
        enforced.is_some_and(|enforced| enforced >= since || enforced >= wanted)
    }
}

/// Life and revision, as answers begin.
pub(super) fn life_and_revision(snapshot: &Snapshot) -> (String, u64) {
    let Version { life, revision } = snapshot.version();
    (life.as_str().to_owned(), revision.0)
}
