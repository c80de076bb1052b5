//! What callers of the Go programs we replace have come to rely on: how Go reads JSON ([`json`]),
//! how it reads flags ([`flags`]) and how it prints durations ([`duration`]).
//!
//! Nothing here is about networking. Start at [`json::from_slice`].

pub mod duration;
pub mod flags;
pub mod json;
