//! What every cell's kernel enforces: answer of `GET /networking/v1/external/status` (design §2.3).

use serde::{Deserialize, Serialize};

/// The receipts one server holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Status {
    /// The database's life; revisions of another life say nothing here.
    pub life: String,
    /// The newest revision this server's snapshot holds.
    pub revision: u64,
    /// Whether every cell that may exist has been heard of since this server started. Until then a
    /// list without stragglers proves nothing.
    pub complete: bool,
    /// Cells that asked for the apps in question, or all cells; ordered by name.
    pub cells: Vec<CellStatus>,
}

/// One cell's receipt.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct CellStatus {
    /// What the cell calls itself.
    pub cell: String,
    /// The revision its kernel enforces of what it asked for; absent before its first receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforced: Option<u64>,
    /// The newest revision that concerns the cell's apps; in force when `enforced` reaches it.
    pub wanted: u64,
    /// Seconds since the cell was last heard of; 0 while it holds a poll.
    pub silent_seconds: f64,
    /// How many apps the cell asks about.
    pub apps: usize,
}
