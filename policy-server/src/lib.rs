//! The policy server: callers say who may talk to whom, cells ask and are told within a blink.
//!
//! The path of one policy (design §2): the external API validates and authorizes it
//! ([`router`], `api`), the store takes it with a revision, the [`snapshot`] learns of it from the
//! log of changes, and the polls that cells hold on the internal API ([`hold`]) answer at once. What
//! a cell says it enforces is kept as a receipt ([`receipts`]) and told to whoever asks.
//!
//! Start reading at [`roles`] for the processes, then [`router`] for the tables of URLs.

mod api;
pub mod apps;
pub mod asg;
pub mod auth;
mod callers;
pub mod cleaner;
pub mod cloud_controller;
pub mod config;
pub mod data_dir;
mod hold;
mod listeners;
pub mod metrics;
pub mod outbound;
mod pki;
mod quarantine;
mod receipts;
pub mod roles;
mod router;
mod server;
mod snapshot;
mod waiting;

pub use api::{ApiSettings, Profile, RateLimit};
pub use callers::Callers;
pub use config::Embedded as Config;
pub use listeners::{ListenError, Listeners};
pub use roles::{RunError, embedded::run};
