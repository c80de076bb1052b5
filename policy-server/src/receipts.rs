//! What each cell says its kernel enforces (design §2.3), whichever server it says it to.
//!
//! A poll is a receipt. What cells say to this server is in memory ([`here`]), and a [`keeper`] writes
//! what is new of it to the database, many cells at a time and never because of a poll that says
//! nothing new: a cell whose poll is held is heard as long as its server lives. What cells said to
//! others, or before this server was started, is read from there ([`rows`]) when somebody asks. Of both
//! the last word counts ([`cells`]), unless two agents speak for one cell ([`agents`]).

mod agents;
mod cells;
mod groups;
mod here;
pub(crate) mod keeper;
mod moments;
mod presence;
mod rows;
#[cfg(test)]
mod tests;
mod turn;
mod word;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use policy::wire::status::CellStatus;
use policy_store::{CellsReport, PolicyStore, StoreError};
use tokio::{sync::Notify, time::timeout};
use uuid::Uuid;

use self::{
    cells::{Cell, Cells},
    here::{Heard, Here},
    moments::Moments,
    rows::{GONE, Rows},
};
use crate::{
    metrics::Metrics,
    snapshot::{Snapshot, Subject},
};

pub(crate) use self::{
    groups::{Groups, GroupsWord},
    here::Told,
    turn::Turn,
    word::{Backend, Word},
};

/// A cell that was silent for this long is not a straggler any more; it is gone.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// How long after a start, or after another server went, cells may still be on their way back: longer
/// than an agent pauses between two attempts.
const RETURN: Duration = Duration::from_secs(10);

/// Who asks within this shares what was read of the database. Servers write no more often than this.
const FRESH: Duration = Duration::from_millis(100);

/// How long the database may take to tell them.
const PATIENCE: Duration = Duration::from_secs(2);

/// The receipts of all cells, as far as this server knows.
pub(crate) struct Receipts {
    /// What this process is called. A new name at every start: what an earlier one was told by its
    /// cells holds until they speak again.
    server: String,
    here: Mutex<Here>,
    rows: Mutex<Arc<Rows>>,
    /// What cells say of security groups.
    pub groups: Groups,
    /// Held by who reads them.
    reading: tokio::sync::Mutex<()>,
    /// There is something to write.
    news: Notify,
    /// Whether cells poll this process at all.
    are_kept: AtomicBool,
    moments: Moments,
    metrics: Metrics,
    started: Instant,
}

/// A poll of a cell that is being answered; the cell is being heard as long as this lives.
pub(crate) struct Hearing<'a> {
    receipts: &'a Receipts,
    cell: &'a str,
    /// Which agent asks, if it tells.
    agent: Option<Uuid>,
    /// What it asks about, kept once for the poll and the receipt.
    pub subject: Arc<Subject>,
    /// What it was told of that last.
    pub told: Option<Told>,
    /// Whether the agent has asked another question since, which was heard already.
    pub is_overtaken: bool,
}

impl Receipts {
    /// None yet.
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            server: Uuid::new_v4().to_string(),
            here: Mutex::default(),
            rows: Mutex::default(),
            groups: Groups::default(),
            reading: tokio::sync::Mutex::default(),
            news: Notify::new(),
            are_kept: AtomicBool::new(false),
            moments: Moments::default(),
            metrics,
            started: Instant::now(),
        }
    }

    /// What this process is called among those that share a database.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Notes what `cell` says by its question of this number, if it counts them. It is there until the answer
    /// is dropped.
    pub(crate) fn hear<'a>(
        &'a self,
        cell: &'a str,
        question: Option<u64>,
        mut word: Word,
    ) -> Hearing<'a> {
        let now = Instant::now();
        let mut here = self.here();
        here.share(cell, &mut word);
        let (subject, agent) = (word.subject.clone(), word.agent);
        let turn = Turn { agent, question };
        if here.is_overtaken(cell, turn) {
            drop(here);
            return Hearing {
                receipts: self,
                cell,
                agent,
                subject,
                told: None,
                is_overtaken: true,
            };
        }
        let Heard { confirmed, are_several } = here.hear(cell, word, now);
        here.took(cell, turn);
        let (is_news, told) = (here.has_unwritten(), here.told(cell));
        drop(here);
        if is_news {
            self.news.notify_one();
        }
        match are_several {
            Some(true) => tell_of_several(cell),
            Some(false) => {
                tracing::info!(cell.name = cell, "One agent is left that says it is this cell.");
            }
            None => {}
        }
        if let Some(took) = confirmed.and_then(|revision| self.moments.since(revision, now)) {
            self.metrics.confirmed(took);
        }
        Hearing { receipts: self, cell, agent, subject, told, is_overtaken: false }
    }

    /// What `cell` asked this server about last.
    pub(crate) fn subject_of(&self, cell: &str) -> Option<Arc<Subject>> {
        self.here().cells().get(cell).map(|receipt| receipt.word.subject.clone())
    }

    /// The last words of all cells, whichever server they said them to.
    pub(crate) async fn of_all_servers(&self, store: &dyn PolicyStore) -> Cells {
        let reading = async {
            self.read(store).await?;
            store.leases_renewed_within(FORGET_AFTER, SystemTime::now()).await
        };
        let leased = match timeout(PATIENCE, reading).await {
            Ok(Ok(leased)) => Some(leased),
            Ok(Err(error)) => {
                tracing::warn!(error = service::log::chain(&error), "Could not read the receipts.");
                None
            }
            Err(_) => {
                tracing::warn!("The database takes too long to tell the receipts.");
                None
            }
        };
        let are_here = self.are_kept.load(Ordering::Relaxed);
        let cells = self.last_words();
        Cells { cells, leased, are_here, up: self.started.elapsed() }
    }

    /// The cells this server heard itself, and no other since.
    pub(crate) fn of_this_server(&self, snapshot: &Snapshot) -> Vec<CellStatus> {
        let (here, rows) = (self.here_copied(), self.rows());
        let cells = cells::of_this(&here, &rows, &self.server, Instant::now());
        cells.into_iter().map(|cell| cell.status(snapshot)).collect()
    }

    /// What all cells have confirmed that this server must vouch for (design §2.4): those it heard last,
    /// and those nobody else does.
    pub(crate) fn confirmed(&self, snapshot: &Snapshot) -> CellsReport {
        let lowest = cells::confirmed(&self.last_words(), snapshot);
        lowest.map_or(CellsReport::Silent, CellsReport::Confirmed)
    }

    fn last_words(&self) -> Vec<Cell> {
        let (here, rows) = (self.here_copied(), self.rows());
        cells::all(&here, &rows, &self.server, self.started, Instant::now())
    }

    /// Reads what the database has, unless somebody just did.
    pub(crate) async fn read(&self, store: &dyn PolicyStore) -> Result<(), StoreError> {
        let _alone = self.reading.lock().await;
        if self.rows().are_fresh(FRESH, Instant::now()) {
            return Ok(());
        }
        let asked = Instant::now();
        let mut rows = Rows::of_heard(store.receipts().await?, asked);
        rows.is_server_lost = store.is_server_lost(GONE).await?;
        // Word by word, so not while cells wait.
        rows.share(&self.here_copied());
        let rows = Arc::new(rows);
        *self.rows.lock().unwrap_or_else(PoisonError::into_inner) = rows.clone();
        if self.are_kept.load(Ordering::Relaxed) {
            let mut here = self.here();
            let several = here.compare(&rows, &self.server, asked);
            if here.has_unwritten() {
                self.news.notify_one();
            }
            drop(here);
            several.iter().for_each(|cell| tell_of_several(cell));
        }
        Ok(())
    }

    /// The same of security groups, which hold nobody up: what cannot be read is as it was.
    pub(crate) async fn read_of_groups(&self, store: &dyn PolicyStore) {
        match timeout(PATIENCE, self.groups.read(store)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let error = service::log::chain(&error);
                tracing::warn!(error, "Could not read what cells say of security groups.");
            }
            Err(_) => {
                tracing::warn!(
                    "The database takes too long to tell what cells say of security groups."
                );
            }
        }
        if self.groups.has_unwritten() {
            self.news.notify_one();
        }
    }

    fn rows(&self) -> Arc<Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A copy, for who goes through all of it: cells are not to wait so long.
    fn here_copied(&self) -> Here {
        self.here().clone()
    }

    /// A panic elsewhere leaves it whole, since no entry is ever half-written.
    fn here(&self) -> MutexGuard<'_, Here> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A machine made of another's image, mostly.
fn tell_of_several(cell: &str) {
    tracing::warn!(
        cell.name = cell,
        "Two agents say that they are this cell. It confirms nothing as long as both live: give each a \
         cell_id of its own."
    );
}

impl Hearing<'_> {
    /// Why what this cell says is no receipt, if it is not.
    pub(crate) fn refused(&self) -> Option<String> {
        let are_several = self.receipts.here().are_several(self.cell);
        are_several.then(|| word::several(self.cell))
    }

    /// The cell is told that it has so many policies now.
    pub(crate) fn tells(&self, told: Told) {
        if self.is_overtaken {
            return;
        }
        self.receipts.here().tell(self.cell, &self.subject, told);
    }
}

impl Drop for Hearing<'_> {
    fn drop(&mut self) {
        if !self.is_overtaken {
            self.receipts.here().leave(self.cell, self.agent, Instant::now());
        }
    }
}
