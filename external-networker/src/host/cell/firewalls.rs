//! The firewall that is configured, and the other, in which containers may have been left when that was
//! changed.

use std::{collections::BTreeSet, net::Ipv4Addr};

use netfilter::{
    Backend, Builtin, Dialect, Kernel, KernelError, Observed, Plan, Rendered, Ruleset, Scope, Step,
    Table, probe,
};

use crate::{
    config::Config,
    host::{Decide, HostError, Wanted},
    record::Records,
    rules,
};

/// A firewall, and what it holds.
type Looked = (Box<dyn Kernel>, Observed);

/// Both, and what is remembered of who stands where.
pub(super) struct Firewalls<'c> {
    pub config: &'c Config,
    pub records: Records,
}

impl Firewalls<'_> {
    fn backend(&self) -> Result<Backend, HostError> {
        match self.config.backend {
            Backend::Auto => Ok(Backend::Auto.choose(&probe())?),
            chosen => Ok(chosen),
        }
    }

    fn open(&self, backend: Backend) -> Result<Box<dyn Kernel>, HostError> {
        let lock = Some(self.config.iptables_lock_file.clone());
        Ok(if self.is_dual() { backend.open_dual(lock) } else { backend.open(lock) }?)
    }

    /// Whether containers have addresses of IPv6, or some still have after that was turned off.
    fn is_dual(&self) -> bool {
        self.config.second_network.is_some() || self.records.are_dual()
    }

    /// The one that is configured.
    pub fn configured(&self) -> Result<Box<dyn Kernel>, HostError> {
        self.open(self.backend()?)
    }

    /// The firewall that was configured before, should anything of ours stand there.
    pub fn former(&self) -> Result<Option<Looked>, HostError> {
        if self.has_all()? { Ok(None) } else { self.other() }
    }

    /// Whether all containers are known to stand in the one that is configured.
    pub fn has_all(&self) -> Result<bool, HostError> {
        Ok(self.records.firewall() == Some(self.backend()?.to_string()))
    }

    /// The firewall that is not configured. One that cannot be read holds nothing of ours, unless it is
    /// only just now that it cannot.
    fn other(&self) -> Result<Option<Looked>, HostError> {
        let other = match self.backend()? {
            Backend::Nftables => Backend::Iptables,
            _ => Backend::Nftables,
        };
        let looked = self.open(other).and_then(|mut kernel| {
            let observed = kernel.observe()?;
            Ok((kernel, observed))
        });
        let unreadable = |error: &HostError| {
            let error = crate::error_chain(error);
            tracing::debug!("The other firewall cannot be read: {error}");
        };
        match looked {
            Err(error @ HostError::Firewall(KernelError::Moved(_) | KernelError::Lock { .. })) => {
                Err(error)
            }
            looked => Ok(looked.inspect_err(unreadable).ok()),
        }
    }

    /// Makes it hold this; says whether that was news to it.
    pub fn settle(&self, wanted: &Ruleset, scope: &Scope) -> Result<bool, HostError> {
        Ok(!self.configured()?.settle(wanted, scope)?.is_empty())
    }

    pub fn agree(&self, decide: &mut Decide<'_>) -> Result<Vec<BTreeSet<String>>, HostError> {
        let mut kernel = self.configured()?;
        let (dialect, mut touched) = (kernel.dialect(), Vec::new());
        kernel.change(&mut |observed| {
            let plans = plans(dialect, observed, &decide(observed));
            touched = plans.iter().map(Plan::touched).collect();
            plans.into_iter().fold(Plan::nothing(dialect), Plan::and)
        })?;
        Ok(touched)
    }

    pub fn differences(&self, decide: &mut Decide<'_>) -> Result<Vec<BTreeSet<String>>, HostError> {
        let mut kernel = self.configured()?;
        let observed = kernel.observe()?;
        let plans = plans(kernel.dialect(), &observed, &decide(&observed));
        Ok(plans.iter().map(Plan::touched).collect())
    }

    pub fn clear_former(&self, scope: &Scope) -> Result<(), HostError> {
        clear_one(self.former()?, scope)
    }

    /// The same for the one that is not configured, whatever is remembered.
    pub fn clear_other(&self, scope: &Scope) -> Result<(), HostError> {
        clear_one(self.other()?, scope)
    }

    pub fn clear_masquerade(&self, ip: Ipv4Addr) -> Result<(), HostError> {
        let mut kernel = self.configured()?;
        let observed = kernel.observe()?;
        for (mut kernel, observed) in [(kernel, observed)].into_iter().chain(self.other()?) {
            let parent = Builtin::Postrouting.to_string();
            let there = observed.rules(Table::Nat, &parent).unwrap_or_default();
            let steps = there.iter().filter(|rule| rules::is_wrappers_masquerade(rule, ip));
            let steps = steps.map(|rule| Step::Delete(parent.clone(), rule.clone())).collect();
            kernel.commit(&Plan::of(kernel.dialect(), Table::Nat, steps))?;
        }
        Ok(())
    }

    /// Notes that nothing stands in another any more.
    pub fn note_all_is_moved(&self) -> Result<(), HostError> {
        let backend = self.backend()?.to_string();
        if self.records.firewall().as_ref() != Some(&backend) || self.records.is_empty() {
            self.records.set_firewall(&backend)?;
        }
        Ok(())
    }
}

/// What is to be done for each of these.
fn plans(dialect: Dialect, observed: &Observed, wanted: &[Wanted]) -> Vec<Plan> {
    let plan = |Wanted { rules, scope }: &Wanted| {
        Plan::new(&Rendered::new(rules, dialect), observed, scope)
    };
    wanted.iter().map(plan).collect()
}

/// Takes what `scope` owns out of a firewall.
fn clear_one(looked: Option<Looked>, scope: &Scope) -> Result<(), HostError> {
    if let Some((mut kernel, observed)) = looked {
        let nothing = Rendered::new(&Ruleset::new(), kernel.dialect());
        kernel.commit(&Plan::new(&nothing, &observed, scope))?;
    }
    Ok(())
}
