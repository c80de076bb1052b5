//! Which firewall is written, and what becomes of the other one.
//!
//! After the operator has chosen another, or a machine has learnt nftables, rules of a former life stand
//! in the firewall that is no longer written. They go once the one that is holds everything: until then
//! both refuse what either refuses, and let pass what both let pass.
//!
//! A container the networker has not taken along yet has a chain there that refuses what no rule of ours
//! has let in before. So as long as there is any, ours stand aside instead of going: what the firewall
//! that is written lets pass, they let pass.
//!
//! Where IPv6 has tables of its own, these are a former firewall as well once `dual_stack` is off: policies no
//! longer speak of second addresses, and the networker's chains refuse them to each other. What a container's
//! security groups said of its second address stays as it was until the container is gone, since behind that
//! there is only what Garden allowed it, which may be more.

use netfilter::{
    Backend, BackendUnavailable, Dialect, Family, Firewall, Iptables, Kernel, KernelError, Plan,
    Rendered, Ruleset, Scope, Table, probe,
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
    /// The tables of IPv6, where that is not written any more.
    ipv6: Option<Box<dyn Kernel>>,
    scope: Scope,
}

/// What the networker calls a container's chain that lets in what an agent has not refused.
const OVERLAY_CHAINS: &str = "overlay--";

/// And the one that leads to its security groups.
const NETOUT_CHAINS: &str = "netout--";

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

/// What `wish` comes to here, whether or not that works.
pub(crate) fn as_found(wish: Backend) -> Backend {
    match wish {
        Backend::Auto => wish.choose(&probe()).unwrap_or_default(),
        wish => wish,
    }
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
        let ipv6 = config.second_network.is_none().then(|| ip6tables(config));
        Self { kernel: kernel(config, other).ok(), ipv6: ipv6.flatten(), scope }
    }

    /// Takes away what stands there of ours; once that is done, or there is no such firewall, never
    /// again. What fails is tried again by the next pass.
    pub fn sweep(&mut self) {
        self.give_way(&Ruleset::new());
    }

    /// The same, but as long as containers have chains there, what is left of ours is `aside`.
    pub fn give_way(&mut self, aside: &Ruleset) {
        self.sweep_ipv6();
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
            Err(error) if error.is_not_installed() => self.kernel = None,
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, "The rules in the other firewall could not be removed yet.");
            }
        }
    }

    /// Not every kernel has such tables, nor every machine the program; what keeps them from being read
    /// otherwise may pass.
    fn sweep_ipv6(&mut self) {
        let Some(kernel) = &mut self.ipv6 else { return };
        let observed = match kernel.observe() {
            Ok(observed) => observed,
            Err(error) if error.is_locked_out() => return,
            Err(error) if error.is_not_installed() => return self.ipv6 = None,
            Err(KernelError::Failed { stderr, .. }) if has_no_tables(&stderr) => {
                return self.ipv6 = None;
            }
            Err(error) => {
                let error = chain(&error);
                return tracing::warn!(error, "The rules in ip6tables could not be looked at yet.");
            }
        };
        let nothing = Rendered::new(&Ruleset::new(), kernel.dialect());
        let plan = Plan::new(&nothing, &observed, &self.scope);
        if plan.touched().iter().any(|chain| chain.starts_with(NETOUT_CHAINS)) {
            return;
        }
        match kernel.commit(&plan) {
            Ok(()) => {
                if !plan.is_empty() {
                    tracing::info!("The rules in ip6tables were removed: dual_stack is off.");
                }
                self.ipv6 = None;
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, "The rules in ip6tables could not be removed yet.");
            }
        }
    }
}

/// What iptables says where the kernel has no tables of that family.
fn has_no_tables(stderr: &str) -> bool {
    ["does not exist", "not supported"].iter().any(|words| stderr.contains(words))
}

fn ip6tables(config: &Config) -> Option<Box<dyn Kernel>> {
    let kernel = Iptables::installed().ok()?.family(Family::V6);
    Some(Box::new(kernel.with_lock_file(config.iptables_lock_file.clone())))
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
        Self { kernel, ipv6: None, scope: desired::scope() }
    }

    pub(crate) fn owning(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }
}
