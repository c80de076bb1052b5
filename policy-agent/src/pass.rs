//! One pass: look at the cell, decide, make the kernel agree. Blocking, so it runs beside the runtime.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use containers::{Fault, Store, StoreError};
use netfilter::{
    Interface, Kernel, KernelError, Plan, Ruleset, Table,
    conntrack::{Connections, ConntrackError},
};
use service::log::chain;
use thiserror::Error;

use crate::{
    Config,
    answer::Answer,
    connections, desired,
    subnet::{Subnet, SubnetError},
    world::{self, Resident, World},
};

/// Everything a pass reads from and writes to, and what it remembers of earlier passes.
pub(crate) struct Enforcer {
    store: Store,
    subnet_file: PathBuf,
    vtep: Interface,
    kernel: Box<dyn Kernel>,
    connections: Box<dyn Connections>,
    /// The last good reading of each, for when a file is unreadable.
    subnet: Option<Subnet>,
    residents: Option<BTreeSet<Resident>>,
    /// Told once each, not at every pass.
    faults: Vec<Fault>,
    /// The world the kernel was last made to agree with.
    settled: Option<World>,
}

/// What a pass did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub residents: BTreeSet<Resident>,
    /// Whether the kernel now holds what the answer and the containers ask for.
    pub enforced: bool,
    pub rules: usize,
    /// Chains that were changed.
    pub touched: BTreeSet<String>,
    /// Whether they were changed although nothing new was wanted: somebody else had changed them.
    pub repaired: bool,
    pub connections_cut: u64,
}

/// Why a pass left the kernel as it was.
#[derive(Debug, Error)]
pub(crate) enum Held {
    #[error("the cell's subnet is not known")]
    Subnet(#[source] SubnetError),
    #[error("the containers of this cell are not known")]
    Containers(#[source] StoreError),
    #[error("the kernel's rules could not be brought in line")]
    Kernel(#[from] KernelError),
    #[error(
        "the kernel does not hold what was committed, in chains {0:?}; is another program writing them?"
    )]
    Disagrees(BTreeSet<String>),
    #[error("live connections could not be judged")]
    Connections(#[from] ConntrackError),
}

impl Enforcer {
    pub fn new(
        config: &Config,
        kernel: Box<dyn Kernel>,
        connections: Box<dyn Connections>,
    ) -> Self {
        Self {
            store: Store::at(&config.datastore),
            subnet_file: config.subnet_file.clone(),
            vtep: config.vtep.clone(),
            kernel,
            connections,
            subnet: None,
            residents: None,
            faults: Vec::new(),
            settled: None,
        }
    }

    /// Makes the kernel enforce `answer` for the containers that are here now. With no answer at all,
    /// a kernel that has rules of ours keeps them, and one that has none is shut.
    pub fn pass(&mut self, answer: Option<&Answer>) -> Result<Outcome, Held> {
        let world = self.look(answer)?;
        let observed = self.kernel.observe()?;
        let entrance = desired::entrance();
        if answer.is_none() && observed.rules(Table::Filter, entrance.as_str()).is_some() {
            return Ok(Outcome { residents: world.residents, ..Outcome::default() });
        }
        let rules = desired::ruleset(&world);
        let plan = Plan::new(&rules, &observed, &desired::scope());
        self.commit(&plan, &rules)?;

        let unchanged = self.settled.as_ref() == Some(&world);
        let connections_cut =
            if plan.is_empty() && unchanged { 0 } else { self.cut_unlawful(&world)? };
        let outcome = Outcome {
            residents: world.residents.clone(),
            enforced: answer.is_some(),
            rules: rules.len(),
            touched: plan.touched(),
            repaired: unchanged && !plan.is_empty(),
            connections_cut,
        };
        self.settled = Some(world);
        Ok(outcome)
    }

    /// Commits, and reads back: a receipt speaks of what the kernel holds, not of what it was told.
    fn commit(&mut self, plan: &Plan, rules: &Ruleset) -> Result<(), Held> {
        if plan.is_empty() {
            return Ok(());
        }
        self.kernel.commit(plan)?;
        let left = Plan::new(rules, &self.kernel.observe()?, &desired::scope());
        if left.is_empty() { Ok(()) } else { Err(Held::Disagrees(left.touched())) }
    }

    /// The world as the files and the answer tell it; what cannot be read now is as it was.
    fn look(&mut self, answer: Option<&Answer>) -> Result<World, Held> {
        match Subnet::read(&self.subnet_file) {
            Ok(subnet) => self.subnet = Some(subnet),
            Err(error) => {
                let Some(_) = self.subnet else { return Err(Held::Subnet(error)) };
                tracing::warn!(
                    error = chain(&error),
                    "The subnet file is unreadable; its last content holds."
                );
            }
        }
        let was_blank = blank(self.store.path());
        match self.store.read() {
            // Whoever removes the last container leaves an empty list behind, not an empty file: this
            // store was lost, or is just being written by someone who truncates first. Read as "no
            // containers" it would cut everything that is allowed here.
            Ok(contents)
                if contents.containers.is_empty()
                    && self.residents.as_ref().is_some_and(|known| !known.is_empty())
                    && (was_blank || blank(self.store.path())) =>
            {
                tracing::warn!(
                    store.path = %self.store.path().display(),
                    "The container store is gone; its last content holds."
                );
            }
            Ok(contents) => {
                self.tell(&contents.faults);
                self.residents = Some(world::residents(&contents));
            }
            Err(error) => {
                let Some(_) = self.residents else { return Err(Held::Containers(error)) };
                tracing::warn!(
                    error = chain(&error),
                    "The container store is unreadable; its last content holds."
                );
            }
        }
        Ok(World {
            subnet: self.subnet.expect("was read now or before"),
            vtep: self.vtep.clone(),
            residents: self.residents.clone().expect("were read now or before"),
            allowances: answer.map(|answer| answer.allowances.clone()).unwrap_or_default(),
        })
    }

    fn tell(&mut self, faults: &[Fault]) {
        for fault in faults.iter().filter(|fault| !self.faults.contains(fault)) {
            tracing::warn!(
                error = chain(fault),
                "A container is left to the default, which denies."
            );
        }
        self.faults = faults.to_vec();
    }

    fn cut_unlawful(&mut self, world: &World) -> Result<u64, ConntrackError> {
        let mut cut = 0;
        for connection in connections::unlawful(&self.connections.list()?, world) {
            self.connections.forget(&connection)?;
            cut += 1;
        }
        Ok(cut)
    }
}

/// Whether there is no file, or nothing in it.
fn blank(path: &Path) -> bool {
    path.metadata().map_or(true, |about| about.len() == 0)
}

#[cfg(test)]
mod tests;
