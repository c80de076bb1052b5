//! The container store: which containers live on this cell, with which address and metadata
//! (spec/cell.md §C.4).
//!
//! One program writes it (the networker, or the CNI wrapper), several read it (the policy agent, log
//! shippers, and the Go programs we replace), so the shape of the file is a public interface:
//!
//! ```text
//! <store>           {"<handle>": {"handle": …, "ip": …, "metadata": {…}}, …}     mode 0600
//! <store>_lock      flock: exclusive to write, shared to read                    never removed
//! <store>_version   a decimal number that moves with every write
//! <store>_corrupt   what an unreadable store was renamed to by `rebuild`
//! ```
//!
//! Writes replace the file by rename, so that a kill at any instant leaves the old list or the new
//! one. One entry nobody can read hides no other and survives the writes of the others. Start
//! reading at [`Store`].

mod container;
mod file;
mod store;

pub use container::{Container, IPV6};
pub use store::{Contents, Fault, Reading, Store, StoreError};
