//! The policy server by its URLs, through its own listeners: each test starts one, on free ports and
//! a directory of its own.

#![expect(clippy::unwrap_used, reason = "a test may end at the first surprise")]

mod certificates;
mod database_away;
mod external;
mod held;
mod internal;
mod leases;
mod metrics;
mod program;
mod receipts;
mod restart;
mod world;
