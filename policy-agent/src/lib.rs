//! The policy agent: one per cell, it makes the kernel enforce the policies of the containers here.
//!
//! ```text
//! container store ──┐
//! policy server ────┼─► world ──► desired (pure) ──► plan ──► kernel ──► status ──► receipt to the server
//! subnet file ──────┘                                         └─► connections no policy allows are forgotten
//! ```
//!
//! Beside it, [`groups`] does the same for security groups: other chains, another loop.
//!
//! Start reading at [`cycle`], which turns every reason to look into one pass; then [`desired`], which
//! says what the rules are. Nothing here is lost when the agent is killed: the rules are in the kernel,
//! the last good answer of the server is on disk, and both are recognised at the next start.

mod admin;
mod allowances;
mod answer;
mod ask;
mod backend;
mod bypass;
mod certificate;
mod config;
mod connections;
mod cycle;
mod debug;
mod denied;
mod desired;
pub mod doctor;
mod drift;
mod explain;
mod files;
mod firewall;
mod groups;
mod guards;
mod keeper;
mod lists;
mod masquerade;
mod metrics;
mod model;
mod networker;
mod pass;
mod poll;
mod probe;
mod routers;
mod run;
mod saved;
mod shadow;
mod single;
mod stale;
mod status;
mod subnet;
mod waiting;
mod watch;
mod world;
mod writers;

use std::net::SocketAddr;

use policy_client::internal::SettingsError;
use thiserror::Error;

pub use ask::{AskError, explain, probe, promote};
pub use backend::BackendError;
pub use config::Config;
pub use explain::Explanation;
pub use probe::{Attempt, Met, Probe, ProbeError, Transport};
pub use run::run;
pub use shadow::{
    Kind as ShadowKind, Modes as ShadowModes, Promoted, Report as ShadowReport, UnknownKind,
};
pub use single::Taken;

/// Why the agent cannot run at all. Everything that may pass by itself is waited for instead.
#[derive(Debug, Error)]
pub enum AgentError {
    /// Certificates or address of the policy server.
    #[error("preparing to speak to the policy server")]
    Server(#[source] SettingsError),
    /// A local listener, such as the one for the networker.
    #[error("listening on {address}, which is {key} in the configuration{}", admin::hint(source, *address))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What says so.
        key: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Another agent writes the rules here.
    #[error(transparent)]
    Taken(#[from] Taken),
    /// The firewall that is configured.
    #[error("preparing to write rules")]
    Backend(#[from] BackendError),
    /// The directories whose changes concern us.
    #[error("watching for containers")]
    Watch(#[from] watch::WatchError),
    /// One of its parts, which is a defect.
    #[error("a part of the agent has come to an end, which is a defect; its rules stay in place")]
    Panicked(#[source] tokio::task::JoinError),
}
