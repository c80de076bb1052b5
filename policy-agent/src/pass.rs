//! One pass: look at the cell, decide, make the kernel agree. Blocking, so it runs beside the runtime.

use std::collections::BTreeSet;

use containers::Store;
use netfilter::{
    Interface, Kernel, KernelError, Observed, Plan, Rendered, Table,
    conntrack::{Connections, ConntrackError},
};
use thiserror::Error;

use crate::{
    Config,
    answer::Answer,
    connections, desired,
    files::{Files, Unknown},
    world::{Resident, World},
};

/// Everything a pass reads from and writes to, and what it remembers of earlier passes.
pub(crate) struct Enforcer {
    files: Files,
    vtep: Interface,
    ingress_mark: u32,
    kernel: Box<dyn Kernel>,
    connections: Box<dyn Connections>,
    /// The world the kernel was last made to agree with.
    settled: Option<World>,
}

/// What a pass did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub residents: BTreeSet<Resident>,
    /// Whether these are from an earlier reading, the store being unreadable.
    pub stale: bool,
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
    #[error(transparent)]
    Unknown(#[from] Unknown),
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
        let files = Files::new(Store::at(&config.datastore), config.subnet_file.clone());
        let (vtep, ingress_mark) = (config.vtep.clone(), config.ingress_mark);
        Self { files, vtep, ingress_mark, kernel, connections, settled: None }
    }

    /// Makes the kernel enforce `answer` for the containers that are here now. With no answer at all,
    /// a kernel that has rules of ours keeps what is still true of them, and one that has none is shut.
    pub fn pass(&mut self, answer: Option<&Answer>) -> Result<Outcome, Held> {
        let observed = self.kernel.observe()?;
        let world = self.look(answer, &observed)?;
        let entrance = desired::entrance();
        if answer.is_none() && observed.rules(Table::Filter, entrance.as_str()).is_some() {
            let plan = desired::stale(&observed, &world.residents, self.kernel.dialect());
            self.kernel.commit(&plan)?;
            let (residents, touched) = (world.residents, plan.touched());
            let stale = self.files.are_stale();
            return Ok(Outcome { residents, stale, touched, ..Outcome::default() });
        }
        let rules = desired::ruleset(&world);
        let rendered = Rendered::new(&rules, self.kernel.dialect());
        let plan = Plan::new(&rendered, &observed, &desired::scope());
        self.commit(&plan, &rendered)?;

        // Taken out, so that a pass in which connections cannot be judged leaves that to the next.
        let unchanged = self.settled.take().as_ref() == Some(&world);
        let connections_cut =
            if plan.is_empty() && unchanged { 0 } else { self.cut_unlawful(&world)? };
        let outcome = Outcome {
            residents: world.residents.clone(),
            stale: self.files.are_stale(),
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
    fn commit(&mut self, plan: &Plan, rules: &Rendered) -> Result<(), Held> {
        if plan.is_empty() {
            return Ok(());
        }
        self.kernel.commit(plan)?;
        let left = Plan::new(rules, &self.kernel.observe()?, &desired::scope());
        if left.is_empty() { Ok(()) } else { Err(Held::Disagrees(left.touched())) }
    }

    fn look(&mut self, answer: Option<&Answer>, observed: &Observed) -> Result<World, Unknown> {
        Ok(World {
            subnet: self.files.subnet()?,
            vtep: self.vtep.clone(),
            ingress_mark: self.ingress_mark,
            residents: self.files.residents(desired::speaks_of_containers(observed))?.clone(),
            allowances: answer.map(|answer| answer.allowances.clone()).unwrap_or_default(),
        })
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

#[cfg(test)]
mod tests;
