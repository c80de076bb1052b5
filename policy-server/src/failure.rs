//! How a command of ours fails: what was being done, to what, why, and what to do next. Jobs that read a
//! file have the words of the existing system instead (`job.rs`).

use std::process::ExitCode;

use policy_server::{ListenError, RunError, auth::SigningError, config::ConfigError};
use policy_store::{InvalidPool, StoreError};
use service::log::chain;
use thiserror::Error;

const FAILED: u8 = 1;
const USAGE: u8 = 2;

/// Why a command did not do what it was asked.
#[derive(Debug, Error)]
pub enum Failure {
    #[error(transparent)]
    Addresses(#[from] InvalidPool),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Serve(RunError),
    #[error("signing a token")]
    Token(#[source] SigningError),
    #[error("could not read config file")]
    File(#[from] ConfigError),
    #[error("telling the database that it was restored")]
    Restored(#[source] RunError),
}

impl Failure {
    /// Tells standard error; the code is for scripts.
    pub fn tell(&self) -> ExitCode {
        eprintln!("policy-server: {}", chain(self));
        if let Some(advice) = self.advice() {
            eprintln!("\n{advice}");
        }
        ExitCode::from(match self {
            Self::Addresses(_) => USAGE,
            _ => FAILED,
        })
    }

    fn advice(&self) -> Option<&'static str> {
        Some(match self {
            Self::Addresses(_) => "See --overlay-network and --subnet-prefix-length.",
            Self::Listen(_) => {
                "If a policy-server runs here already, stop it, or give this one addresses and a \
                 directory of\nits own: --listen, --internal-listen and --data-dir."
            }
            Self::Token(SigningError::NoKey(_)) => {
                "The server the token is for makes it when it starts: `policy-server --embedded`. Is \
                 --data-dir\nits directory?"
            }
            Self::Restored(RunError::NoDatabase(_)) => "Is --data-dir the directory of the server?",
            Self::Serve(RunError::DataDir(error)) if error.is_taken() => {
                "Another policy-server runs on this directory. Stop it, or give this one a --data-dir \
                 of its own."
            }
            Self::Serve(RunError::DataDir(_)) => {
                "--data-dir must be a directory this user may write to, or may make."
            }
            Self::Serve(RunError::Open { source, .. })
            | Self::Restored(RunError::Open { source, .. }) => of_database(source)?,
            _ => return None,
        })
    }
}

fn of_database(error: &StoreError) -> Option<&'static str> {
    match error {
        StoreError::Connect(error) if error.is_absence() => {
            Some("Does the database run, and is that its address?")
        }
        StoreError::Connect(_) => Some("Do user, password and the name of the database fit?"),
        _ => None,
    }
}
