use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use policy::Version;

use crate::StoreError;

/// What a cell said last of security groups: which its kernel enforces, and how it fares (design §2.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredGroupReceipt {
    /// The cell's name.
    pub cell: String,
    /// What its kernel enforces; `None` if it claims nothing.
    pub enforced: Option<Version>,
    /// The spaces it asks about.
    pub spaces: BTreeSet<String>,
    /// Why it does not enforce what it was told last.
    pub error: Option<String>,
    /// How long ago it was said.
    pub age: Duration,
}

/// What cells said last of security groups, beside what they say of policies
/// ([`ReceiptStore`](crate::ReceiptStore)), to whichever server. Times are reckoned by the database's
/// clock, and nothing here waits for those who change policies.
#[async_trait]
pub trait GroupReceiptStore: Send + Sync {
    /// Writes what cells said, in one statement per batch, not under the lock of writers; an older word
    /// never replaces a later one. Names that have a NUL or more than 255 characters are passed over: no
    /// cell is called that.
    async fn write_group_receipts(&self, receipts: &[StoredGroupReceipt])
    -> Result<(), StoreError>;

    /// All of them, ordered by cell.
    async fn group_receipts(&self) -> Result<Vec<StoredGroupReceipt>, StoreError>;

    /// Forgets what cells said at least `silent_for` ago that have no other receipt; returns how many. A
    /// cell that is heard of has one.
    async fn forget_group_receipts(&self, silent_for: Duration) -> Result<u64, StoreError>;
}
