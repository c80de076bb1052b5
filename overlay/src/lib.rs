//! The overlay of one cell: a leased block of addresses, and the VXLAN device that joins it to the
//! blocks of all other cells (spec/cell.md §E.3–E.4).
//!
//! [`run`] takes a device up, or makes one, and then keeps three things true: the lease is renewed,
//! the kernel has one route, one neighbour and one forwarding entry for each other cell, and
//! `subnet.env` says what CNI plugins need to know. Whatever goes wrong later, the data plane stays
//! as it is; only a lease that is no longer ours ends the program.
//!
//! ```text
//! controller ──leases──► neighbourhood ──desired──► plan ◄──observed── kernel
//!      ▲                                             │ apply
//!      └── renew every poll_interval                 └──────────────────► kernel
//! ```
//!
//! Start reading at `daemon.rs` for the loop, `plan.rs` for what it decides.

pub mod config;
mod controller;
mod converge;
mod daemon;
mod device;
mod entries;
mod health;
mod neighbourhood;
mod pace;
mod plan;
mod subnet_file;
mod take_up;

pub use config::Config;
pub use controller::Controller;
pub use daemon::{OverlayError, run, run_with};
pub use device::DeviceError;
pub use subnet_file::SubnetFileError;
pub use take_up::TakeUpError;
