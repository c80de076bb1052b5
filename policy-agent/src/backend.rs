//! Which firewall is written, and what becomes of the other one.
//!
//! After the operator has chosen another, or a machine has learnt nftables, rules of a former life stand
//! in the firewall that is no longer written. They go once the one that is holds everything: until then
//! both refuse what either refuses, and let pass what both let pass.

use netfilter::{
    Backend, BackendUnavailable, Dialect, Firewall, Kernel, KernelError, Plan, Rendered, Ruleset,
    Scope, probe,
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

/// The firewall that is not written any more, and what of it was ours.
pub(crate) struct Former {
    kernel: Option<Box<dyn Kernel>>,
    scope: Scope,
}

/// The firewall the configuration asks for, and the other.
pub(crate) fn open(config: &Config) -> Result<(Backend, Firewall, Former), BackendError> {
    // iptables is taken at its word: whatever keeps it from working may pass, and is waited for.
    let backend = match config.backend {
        Backend::Iptables => Backend::Iptables,
        wish => wish.choose(&probe())?,
    };
    let kernel = backend
        .open(config.iptables_lock_file.clone())
        .map_err(|source| BackendError::Open { backend, source })?;
    Ok((backend, Firewall::new(kernel), Former::beside(config, backend, desired::scope())))
}

impl Former {
    /// The other firewall than `backend`, and what `scope` owns there.
    pub fn beside(config: &Config, backend: Backend, scope: Scope) -> Self {
        let other = match backend {
            Backend::Nftables => Backend::Iptables,
            _ => Backend::Nftables,
        };
        // One that cannot be opened holds nothing of ours.
        Self { kernel: other.open(config.iptables_lock_file.clone()).ok(), scope }
    }

    /// Takes away what stands there of ours; once that is done, or there is no such firewall, never
    /// again. What fails is tried again by the next pass.
    pub fn sweep(&mut self) {
        let Some(kernel) = &mut self.kernel else { return };
        match swept(&mut **kernel, &self.scope) {
            Ok(plan) => {
                if !plan.is_empty() {
                    let backend = named(kernel.dialect());
                    tracing::info!(backend, "The rules in the other firewall were removed.");
                }
                self.kernel = None;
            }
            Err(KernelError::Run { .. }) => self.kernel = None,
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, "The rules in the other firewall could not be removed yet.");
            }
        }
    }
}

fn swept(kernel: &mut dyn Kernel, scope: &Scope) -> Result<Plan, KernelError> {
    let nothing = Rendered::new(&Ruleset::new(), kernel.dialect());
    let plan = Plan::new(&nothing, &kernel.observe()?, scope);
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
        Self { kernel, scope: desired::scope() }
    }

    pub(crate) fn owning(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }
}
