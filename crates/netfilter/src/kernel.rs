//! The kernel as this crate needs it: look, and make it so.

mod fake;
mod iptables;
mod lock_file;
mod nftables;
mod program;

use std::{
    io,
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
};

use thiserror::Error;

use crate::{Dialect, Observed, Plan, Rendered, Ruleset, Scope, UnreadableRuleset};

pub use fake::{FakeKernel, Intruder};
pub use iptables::{Engine, Iptables};
pub use nftables::Nftables;
pub(crate) use program::run;

/// A firewall that can be read and changed. Calls block; a daemon makes them on a blocking thread.
pub trait Kernel: Send {
    /// The words it is spoken to in.
    fn dialect(&self) -> Dialect;

    /// Everything our tables hold now.
    fn observe(&mut self) -> Result<Observed, KernelError>;

    /// Carries out `plan`: with nftables in one transaction, with iptables each table in one: all of
    /// its steps, or none. An empty plan touches nothing.
    fn commit(&mut self, plan: &Plan) -> Result<(), KernelError>;

    /// The number of the ruleset, which every change by anybody raises; `None` if the kernel keeps
    /// none, and must be read to know.
    fn generation(&mut self) -> Result<Option<u32>, KernelError>;

    /// By how much committing `plan` raises that number, if nobody else writes.
    fn generations_of(&self, plan: &Plan) -> u32;

    /// Looks, has `decide` say what follows from what is there, does that, and returns it. No program
    /// that holds the same lock file while it writes comes in between.
    fn change(&mut self, decide: &mut dyn FnMut(&Observed) -> Plan) -> Result<Plan, KernelError> {
        let plan = decide(&self.observe()?);
        self.commit(&plan)?;
        Ok(plan)
    }

    /// One whole pass: looks, plans, commits, and returns what was done. Meant for who has one thing to
    /// write: it is not read back, so what the kernel says in other words is only known to be ours
    /// after a look that nobody else's change has come before.
    fn settle(&mut self, wanted: &Ruleset, scope: &Scope) -> Result<Plan, KernelError> {
        let wanted = Rendered::new(wanted, self.dialect());
        self.change(&mut |observed| Plan::new(&wanted, observed, scope))
    }
}

impl KernelError {
    /// Whether another writer held a lock for longer than anybody should be waited for; whoever tries
    /// again at once waits as long again.
    pub fn is_locked_out(&self) -> bool {
        match self {
            Self::Lock { .. } => true,
            Self::Failed { status, .. } => status.code() == Some(iptables::RESOURCE_PROBLEM),
            _ => false,
        }
    }

    /// Whether there is no such program here, which will not change soon.
    pub fn is_not_installed(&self) -> bool {
        matches!(self, Self::Run { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// A kernel that a test keeps a hand on.
impl<K: Kernel> Kernel for Arc<Mutex<K>> {
    fn dialect(&self) -> Dialect {
        self.lock().unwrap_or_else(PoisonError::into_inner).dialect()
    }

    fn observe(&mut self) -> Result<Observed, KernelError> {
        self.lock().unwrap_or_else(PoisonError::into_inner).observe()
    }

    fn commit(&mut self, plan: &Plan) -> Result<(), KernelError> {
        self.lock().unwrap_or_else(PoisonError::into_inner).commit(plan)
    }

    fn generation(&mut self) -> Result<Option<u32>, KernelError> {
        self.lock().unwrap_or_else(PoisonError::into_inner).generation()
    }

    fn generations_of(&self, plan: &Plan) -> u32 {
        self.lock().unwrap_or_else(PoisonError::into_inner).generations_of(plan)
    }
}

/// Why the kernel could not be read or changed.
#[derive(Debug, Error)]
pub enum KernelError {
    /// A program is not installed, or cannot be started.
    #[error("running {program}; are the packages iptables and nftables installed?")]
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
    /// The kernel cannot be spoken to, or refuses, without a program in between.
    #[error("speaking to nf_tables over netlink")]
    Netlink(#[source] io::Error),
    /// Two different chains or sets are wanted under one name: nothing of what is wanted is written.
    #[error("two different things would be called {0}, so nothing is written")]
    Clash(String),
    /// A rule or element to be deleted has gone, or another writer keeps changing what is read.
    #[error("{0} changed while it was written to")]
    Moved(String),
    /// The listing is not what `iptables-save` prints.
    #[error("reading the rules back")]
    Listing(#[from] UnreadableRuleset),
    /// A fake kernel was told to fail, or asked for what no kernel does.
    #[error("fake kernel: {0}")]
    Fake(String),
}
