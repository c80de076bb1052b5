//! Which firewall is written, and what becomes of the other one.
//!
//! After the operator has chosen another, or a machine has learnt nftables, rules of a former life stand
//! in the firewall that is no longer written. They go once the one that is holds everything: until then
//! both refuse what either refuses, and let pass what both let pass.

use netfilter::{
    Backend, BackendUnavailable, Dialect, Firewall, Kernel, KernelError, Plan, Rendered, Ruleset,
    probe,
};
use service::log::chain;
use thiserror::Error;

use crate::{Config, desired};

/// Why no firewall can be written.
#[derive(Debug, Error)]
pub enum BackendError {
    /// The one that is configured does not work here.
    #[error(transparent)]
    Unavailable(#[from] BackendUnavailable),
    /// Its programs, or the way to the kernel, cannot be opened.
    #[error("opening the backend {backend}")]
    Open {
        /// Which.
        backend: Backend,
        /// Why not.
        #[source]
        source: KernelError,
    },
}

/// The firewall that is not written any more.
pub(crate) struct Former(Option<Box<dyn Kernel>>);

/// The firewall the configuration asks for, and the other.
pub(crate) fn open(config: &Config) -> Result<(Backend, Firewall, Former), BackendError> {
    // iptables is taken at its word: whatever keeps it from working may pass, and is waited for.
    let backend = match config.backend {
        Backend::Iptables => Backend::Iptables,
        wish => wish.choose(&probe())?,
    };
    let lock_file = || config.iptables_lock_file.clone();
    let kernel =
        backend.open(lock_file()).map_err(|source| BackendError::Open { backend, source })?;
    let other = match backend {
        Backend::Nftables => Backend::Iptables,
        _ => Backend::Nftables,
    };
    // One that cannot be opened holds nothing of ours.
    let former = Former(other.open(lock_file()).ok());
    Ok((backend, Firewall::new(kernel), former))
}

impl Former {
    /// Takes away what stands there of ours; once that is done, or there is no such firewall, never
    /// again. What fails is tried again by the next pass.
    pub fn sweep(&mut self) {
        let Some(kernel) = &mut self.0 else { return };
        match swept(&mut **kernel) {
            Ok(plan) => {
                if !plan.is_empty() {
                    let backend = named(kernel.dialect());
                    tracing::info!(backend, "The rules in the other firewall were removed.");
                }
                self.0 = None;
            }
            Err(KernelError::Run { .. }) => self.0 = None,
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, "The rules in the other firewall could not be removed yet.");
            }
        }
    }
}

fn swept(kernel: &mut dyn Kernel) -> Result<Plan, KernelError> {
    let nothing = Rendered::new(&Ruleset::new(), kernel.dialect());
    let plan = Plan::new(&nothing, &kernel.observe()?, &desired::scope());
    kernel.commit(&plan)?;
    Ok(plan)
}

fn named(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Iptables(_) => "iptables",
        Dialect::Nft => "nftables",
    }
}

#[cfg(test)]
impl Former {
    pub(crate) fn of(kernel: Option<Box<dyn Kernel>>) -> Self {
        Self(kernel)
    }
}
