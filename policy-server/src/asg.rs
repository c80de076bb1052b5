//! Security groups: one process among several learns them from Cloud Controller and keeps them in the
//! database, from where every server tells its cells (spec/policy-server.md §7).
//!
//! [`syncer`] is the loop, [`list`] what one look at Cloud Controller amounts to, [`page`] what it
//! says, [`leader`] who may do it at all.

pub mod leader;
pub mod list;
pub mod locket;
pub mod page;
pub mod syncer;

pub use leader::{DatabaseLead, LeadError, Leadership};
pub use list::{SecurityGroupSource, SourceError};
pub use locket::{Locket, LocketSettings};
pub use syncer::{SyncMetrics, Syncer, SyncerError, SyncerSettings, run};
