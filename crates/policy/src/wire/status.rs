//! What every cell's kernel enforces (design §2.3): answers of `GET /networking/v1/external/status`, a
//! line per cell, and of `GET /networking/v1/external/policies/status`, a line per policy.

use serde::{Deserialize, Serialize};

use super::{Source, v1::Destination};

/// The receipts of all cells, whichever server they gave them to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Status {
    /// The database's life; revisions of another life say nothing here.
    pub life: String,
    /// The newest revision this server's snapshot holds.
    pub revision: u64,
    /// Whether every cell that may exist has been heard of. Until then a list without stragglers
    /// proves nothing.
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
    /// The server it spoke to last; absent if that is not known any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The revision its kernel enforces of what it asked for; absent before its first receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforced: Option<u64>,
    /// Seconds since it said so first; absent like `enforced`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforced_seconds: Option<f64>,
    /// The newest revision that concerns the cell's apps; in force when `enforced` reaches it.
    pub wanted: u64,
    /// Seconds since the cell was last heard of; about 0 while it holds a poll.
    pub silent_seconds: f64,
    /// How many apps the cell asks about.
    pub apps: usize,
    /// What its kernel filters with: `iptables` or `nftables`; absent if the cell does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Why the cell cannot enforce what it should, in its own words, or that two agents say they are the
    /// cell; absent if neither is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How it fares with security groups; absent if it says nothing of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<GroupsStatus>,
}

/// One cell's receipt for security groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct GroupsStatus {
    /// The revision its kernel enforces of the groups of its spaces; absent if it claims none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforced: Option<u64>,
    /// The newest revision that concerns the cell's spaces; in force when `enforced` reaches it.
    pub wanted: u64,
    /// How many spaces the cell asks about.
    pub spaces: usize,
    /// Why the cell cannot enforce what it should, in its own words; absent if it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How far policies have got.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct PoliciesStatus {
    /// The database's life; revisions of another life say nothing here.
    pub life: String,
    /// The newest revision this server's snapshot holds.
    pub revision: u64,
    /// Whether every cell that may exist has been heard of. Until then a policy without stragglers may
    /// have some.
    pub complete: bool,
    /// The policies in question, or all, in no particular order.
    pub policies: Vec<PolicyStatus>,
}

/// How far one policy has got.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct PolicyStatus {
    /// Who may send.
    pub source: Source,
    /// Who is reached, and how, in the shape of version 1.
    pub destination: Destination,
    /// The revision it came with, or an earlier one if that is forgotten.
    pub revision: u64,
    /// How many cells ask about one of its apps.
    pub relevant: usize,
    /// How many of them enforce it.
    pub enforced: usize,
    /// Names of the others, the first few of them by name.
    pub waiting: Vec<String>,
}
