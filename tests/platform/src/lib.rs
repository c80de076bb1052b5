//! The parts of a Cloud Foundry that cannot be had here, played faithfully: UAA, Cloud Controller,
//! Locket, and the metron agent. Each answers only what the real one is known to answer
//! (spec/policy-server.md §3, §7, §11, §14), remembers what it was asked, and fails on request.
//!
//! Each lives on loopback, on a port of its own, and ends when dropped. Start reading at the module
//! of the part a test needs.

pub mod certificates;
pub mod cloud_controller;
pub mod locket;
pub mod metron;
mod stage;
pub mod uaa;

pub use stage::until;
