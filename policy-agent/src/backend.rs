//! Which firewall is written, and what becomes of the other one.
//!
//! After the operator has chosen another, or a machine has learnt nftables, rules of a former life stand
//! in the firewall that is no longer written. They go once the one that is holds everything: until then
//! both refuse what either refuses, and let pass what both let pass.
//!
//! A container the networker has not taken along yet has a chain there that refuses what no rule of ours
//! has let in before. So as long as there is any, ours stand aside instead of going: what the firewall
//! that is written lets pass, they let pass.

use netfilter::{
    Backend, BackendUnavailable, Dialect, Firewall, Kernel, KernelError, Plan, Rendered, Ruleset,
    Scope, Table, probe,
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

/// What the networker calls a container's chain that lets in what an agent has not refused.
const OVERLAY_CHAINS: &str = "overlay--";

/// The firewall the configuration asks for, and the other.
pub(crate) fn open(config: &Config) -> Result<(Backend, Firewall, Former), BackendError> {
    // iptables is taken at its word: whatever keeps it from working may pass, and is waited for.
    let backend = match (config.backend, config.second_network) {
        (wish, Some(_)) => wish.choose_dual(&probe())?,
        (Backend::Iptables, None) => Backend::Iptables,
        (wish, None) => wish.choose(&probe())?,
    };
    let kernel =
        kernel(config, backend).map_err(|source| BackendError::Open { backend, source })?;
    Ok((backend, Firewall::new(kernel), Former::beside(config, backend, desired::scope())))
}

fn kernel(config: &Config, backend: Backend) -> Result<Box<dyn Kernel>, KernelError> {
    let lock_file = config.iptables_lock_file.clone();
    match config.second_network {
        Some(_) => backend.open_dual(lock_file),
        None => backend.open(lock_file),
    }
}

/// The one of the two that is not written.
pub(crate) fn other_than(backend: Backend) -> Backend {
    match backend {
        Backend::Nftables => Backend::Iptables,
        _ => Backend::Nftables,
    }
}

impl Former {
    /// The other firewall than `backend`, and what `scope` owns there.
    pub fn beside(config: &Config, backend: Backend, scope: Scope) -> Self {
        let other = other_than(backend);
        // One that cannot be opened holds nothing of ours.
        Self { kernel: kernel(config, other).ok(), scope }
    }

    /// Takes away what stands there of ours; once that is done, or there is no such firewall, never
    /// again. What fails is tried again by the next pass.
    pub fn sweep(&mut self) {
        self.give_way(&Ruleset::new());
    }

    /// The same, but as long as containers have chains there, what is left of ours is `aside`.
    pub fn give_way(&mut self, aside: &Ruleset) {
        let Some(kernel) = &mut self.kernel else { return };
        match given_way(&mut **kernel, &self.scope, aside) {
            Ok((plan, true)) => {
                if !plan.is_empty() {
                    let backend = named(kernel.dialect());
                    tracing::info!(
                        backend,
                        "The rules in the other firewall stand aside until its containers are moved."
                    );
                }
            }
            Ok((plan, false)) => {
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

/// What was done, and whether there are containers that need what is left.
fn given_way(
    kernel: &mut dyn Kernel,
    scope: &Scope,
    aside: &Ruleset,
) -> Result<(Plan, bool), KernelError> {
    let observed = kernel.observe()?;
    let is_needed = !aside.is_empty()
        && observed.chains(Table::Filter).any(|chain| chain.starts_with(OVERLAY_CHAINS));
    let nothing = Ruleset::new();
    let left = if is_needed { aside } else { &nothing };
    let plan = Plan::new(&Rendered::new(left, kernel.dialect()), &observed, scope);
    kernel.commit(&plan)?;
    Ok((plan, is_needed))
}

fn named(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Iptables(_) | Dialect::DualIptables => "iptables",
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
