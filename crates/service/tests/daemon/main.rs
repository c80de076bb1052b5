//! What every daemon relies on, over real sockets and with real certificates.
#![allow(clippy::unwrap_used, reason = "a test that cannot set the scene says where")]

mod authority;
mod listeners;
mod outbound;
mod reload;
