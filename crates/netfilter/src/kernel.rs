//! The kernel as this crate needs it: look, and make it so.

mod fake;
mod iptables;

use std::{io, process::ExitStatus};

use thiserror::Error;

use crate::{Observed, Plan, Ruleset, Scope, UnreadableRuleset};

pub use fake::FakeKernel;
pub use iptables::Iptables;

/// A firewall that can be read and changed. Calls block; a daemon makes them on a blocking thread.
pub trait Kernel: Send {
    /// Everything the three tables hold now.
    fn observe(&mut self) -> Result<Observed, KernelError>;

    /// Carries out `plan`, each table in one transaction: all of its steps, or none. An empty plan
    /// touches nothing.
    fn commit(&mut self, plan: &Plan) -> Result<(), KernelError>;

    /// One whole pass: looks, plans, commits, and returns what was done.
    fn settle(&mut self, wanted: &Ruleset, scope: &Scope) -> Result<Plan, KernelError> {
        let observed = self.observe()?;
        let plan = Plan::new(wanted, &observed, scope);
        self.commit(&plan)?;
        Ok(plan)
    }
}

/// Why the kernel could not be read or changed.
#[derive(Debug, Error)]
pub enum KernelError {
    /// A program is not installed, or cannot be started.
    #[error("running {program}; is the package iptables installed?")]
    Run {
        /// Which program.
        program: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A program ran and failed.
    #[error("{program} failed ({status}): {stderr}")]
    Failed {
        /// Which program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// The lock file shared with other writers of rules cannot be taken.
    #[error("taking the iptables lock file {path}")]
    Lock {
        /// Where it is.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The listing is not what `iptables-save` prints.
    #[error("reading the rules back")]
    Listing(#[from] UnreadableRuleset),
    /// A fake kernel was told to fail, or asked for what no kernel does.
    #[error("fake kernel: {0}")]
    Fake(String),
}
