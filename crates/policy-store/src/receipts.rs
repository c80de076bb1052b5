use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use policy::{AppGuid, Version};
use uuid::Uuid;

use crate::StoreError;

/// What a cell said last: which policies its kernel enforces, and how it fares (design §2.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReceipt {
    /// The cell's name.
    pub cell: String,
    /// What its kernel enforces; `None` if it has not said.
    pub enforced: Option<Version>,
    /// The apps it asks about; `None`: everything.
    pub apps: Option<BTreeSet<AppGuid>>,
    /// What the rules are written with: `iptables`, say.
    pub backend: Option<String>,
    /// Why it does not enforce what it was told last.
    pub error: Option<String>,
    /// Which process said it, by the name it took when it started; `None` if it does not say.
    pub agent: Option<Uuid>,
    /// How long ago it was said.
    pub age: Duration,
}

/// A receipt that some server wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeardReceipt {
    /// The server the cell said it to, by the name it reports by
    /// ([`report_cells`](crate::TagQuarantine::report_cells)).
    pub server: String,
    /// What was said.
    pub receipt: StoredReceipt,
    /// Since that server's last sign of life: a report, or this receipt. As long as it lives, a cell
    /// whose poll it holds is heard without saying anything.
    pub server_silent: Duration,
}

/// What cells said last, for all servers on one database. Times are reckoned by the database's clock,
/// and nothing here waits for those who change policies.
#[async_trait]
pub trait ReceiptStore: Send + Sync {
    /// Writes what cells said to `server`, in one statement per batch, not under the lock of writers. An
    /// older word never replaces a later one that was said to another server. Names that have a NUL or
    /// more than 255 characters are passed over: no cell is called that.
    async fn write_receipts(
        &self,
        server: &str,
        receipts: &[StoredReceipt],
    ) -> Result<(), StoreError>;

    /// All of them, ordered by cell, with the age of the word and of the last sign of life of the cell's
    /// server.
    async fn receipts(&self) -> Result<Vec<HeardReceipt>, StoreError>;

    /// Forgets servers that have given no sign of life for `silent_for`, and their receipts; returns how
    /// many of these. Those of a server that lives are its own to forget.
    async fn forget_receipts(&self, silent_for: Duration) -> Result<u64, StoreError>;
}
