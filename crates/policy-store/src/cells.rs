use std::time::Duration;

use async_trait::async_trait;
use policy::Revision;

use crate::StoreError;

/// What the cells that poll one server enforce, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellsReport {
    /// No cell says what it enforces.
    Silent,
    /// Every cell of this server enforces at least this revision.
    Confirmed(Revision),
}

/// Tags that apps gave back and that cells may still know as theirs (design §2.4).
///
/// A released tag is quarantined until every live cell has confirmed a later revision: until then
/// packets of its next owner could pass by the rules of the last one. The last owner itself may have
/// it back at once. Where no cell reports, tags are free at once, lowest first.
#[async_trait]
pub trait TagQuarantine: Send + Sync {
    /// Notes what the cells of `server` enforce, and frees the tags that all servers' cells have
    /// confirmed. A server that does not report for a minute is taken for gone, and others must speak
    /// for its cells by then. Returns how many tags were freed.
    async fn report_cells(&self, server: &str, report: CellsReport) -> Result<usize, StoreError>;

    /// Notes that `server` ends, and that all its cells said to it is written
    /// ([`write_receipts`](crate::ReceiptStore::write_receipts)). What it reported last counts for a
    /// minute as ever. Its name is not used again.
    async fn take_leave(&self, server: &str) -> Result<(), StoreError>;

    /// Whether there is a server that has not reported for `silent_for` and has not taken leave: what
    /// cells said to it last may be lost. It is remembered for as long as receipts are
    /// ([`forget_receipts`](crate::ReceiptStore::forget_receipts)).
    async fn is_server_lost(&self, silent_for: Duration) -> Result<bool, StoreError>;

    /// How many tags are quarantined.
    async fn quarantined_tags(&self) -> Result<usize, StoreError>;
}
