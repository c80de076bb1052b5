//! The policy server by its URLs, through its own listeners: each test starts one, on free ports and
//! a directory of its own.

#![expect(clippy::unwrap_used, reason = "a test may end at the first surprise")]

mod any_bytes;
mod body_cap;
mod callers;
mod certificates;
mod cors;
mod database_away;
mod document;
mod external;
mod headers;
mod held;
mod internal;
mod leases;
mod legacy;
mod metrics;
mod program;
mod rate_limit;
mod receipts;
mod restart;
mod routing;
mod security_groups;
mod world;
