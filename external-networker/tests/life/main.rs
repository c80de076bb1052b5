//! A container's life on a cell, with real namespaces, real plugins and real rules.
#![allow(clippy::unwrap_used, reason = "a test that cannot set the scene says where")]

#[path = "../cell/mod.rs"]
mod cell;

mod agent;
mod coming_and_going;
mod lost_files;
mod others_hands;
mod plugins;
mod store_owner;
mod traffic;
