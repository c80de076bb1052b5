//! Configuration files, one module per job (spec/policy-server.md §10): a raw struct as the file has
//! it, and a checked one that cannot be wrong. All mistakes of a file are told at once, by the names
//! and in the words of the existing system; no text ever repeats a secret.
//!
//! The keys are those of the existing system, and beside them some of ours. Without these everything
//! is as there.

mod all;
mod asg_syncer;
mod check;
mod database;
mod driver_string;
mod embedded;
mod external;
mod internal;
mod job;
mod legacy;
mod outbound;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
};

use gocompat::json::{self, JsonError};
use serde::Deserialize;
use thiserror::Error;

pub use all::All;
pub use asg_syncer::{AsgLeader, AsgSyncer};
pub use check::Faults;
pub use database::Database;
pub use embedded::Embedded;
pub use external::{External, TokenVerification};
pub use internal::Internal;
pub use job::{Address, Job};
pub use legacy::Legacy;
pub use outbound::Platform;

/// A configuration with which a program does not start.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("reading config: open {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is no JSON, or not of the right shape.
    #[error("parsing config: {}", .0.in_go_words())]
    Parse(JsonError),
    /// The values are wrong.
    #[error("invalid config: {0}")]
    Invalid(#[from] Faults),
}

/// What the file of a `policy-server` asks for.
#[derive(Debug, Clone)]
pub enum PolicyServer {
    /// The external API, as in 2024.
    External(Box<External>),
    /// Both APIs, as in 2016 (§14.3).
    Legacy(Box<Legacy>),
}

/// What tells a file of 2016 from one of 2024.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Hallmark {
    database: HallmarkDatabase,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct HallmarkDatabase {
    connection_string: String,
}

impl PolicyServer {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::of(&bytes(path)?)
    }

    fn of(bytes: &[u8]) -> Result<Self, ConfigError> {
        let Hallmark { database } = json::from_slice(bytes).map_err(ConfigError::Parse)?;
        Ok(match database.connection_string.as_str() {
            "" => Self::External(Box::new(External::of(bytes)?)),
            _ => Self::Legacy(Box::new(Legacy::of(bytes)?)),
        })
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}
