use std::fmt;

use crate::{
    Builtin, Dialect, Family, Kernel, KernelError, Observed, Plan, Table,
    judge::{Judgement, Packet, Rulebook},
    observed::target,
};

/// What another writer does between our looking and our writing.
pub type Intruder = Box<dyn FnMut(&mut Observed) + Send>;

/// A kernel in memory. It refuses what a kernel refuses (deleting a rule that is not there, leading to
/// a chain that is not there, removing a chain that is still led to), carries out all of a transaction
/// or nothing, counts commits, and fails when told to.
pub struct FakeKernel {
    /// What it holds; tests vandalise it.
    pub state: Observed,
    /// How many plans that were not empty it has carried out.
    pub commits: usize,
    /// How often it was read as a whole.
    pub readings: usize,
    /// The next so many calls fail.
    pub failures: usize,
    /// The next commit dies with its process after so many tables; with nftables, where all tables are
    /// one transaction, either before or after it.
    pub killed_after: Option<usize>,
    /// Writes before each commit, as somebody else.
    pub intruder: Option<Intruder>,
    /// Counted up by every commit, and by whoever vandalises the state if a test means it to be
    /// noticed; `None` as with iptables-legacy, which cannot tell.
    pub generation: Option<u32>,
    /// The words it is spoken to in.
    pub dialect: Dialect,
}

impl Default for FakeKernel {
    fn default() -> Self {
        Self::speaking(Dialect::Iptables(Family::V4))
    }
}

impl fmt::Debug for FakeKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeKernel").field("state", &self.state).finish_non_exhaustive()
    }
}

impl FakeKernel {
    /// An empty kernel that is spoken to in this dialect.
    pub fn speaking(dialect: Dialect) -> Self {
        Self {
            state: Observed::default(),
            commits: 0,
            readings: 0,
            failures: 0,
            killed_after: None,
            intruder: None,
            generation: None,
            dialect,
        }
    }

    /// What becomes of a packet that meets the filter's `hook`, by the rules that are there.
    ///
    /// # Errors
    /// If a rule is there that nobody here can read; the text says which. Rules of nftables are read by
    /// no one but the kernel.
    pub fn judge(&self, hook: Builtin, packet: &Packet) -> Result<Judgement, String> {
        Ok(Rulebook::reading(&self.state)?.judge(Table::Filter, hook, packet))
    }

    fn fail_if_told(&mut self) -> Result<(), KernelError> {
        if self.failures == 0 {
            return Ok(());
        }
        self.failures -= 1;
        Err(KernelError::Fake("told to fail".into()))
    }

    /// The transactions a plan is carried out in.
    fn transactions(&self, plan: &Plan) -> Vec<Plan> {
        match self.dialect {
            Dialect::Nft => vec![plan.clone()],
            Dialect::Iptables(_) | Dialect::DualIptables => {
                let table = |(table, steps): (&Table, &Vec<_>)| {
                    Plan::of(self.dialect, *table, steps.clone())
                };
                plan.tables.iter().map(table).collect()
            }
        }
    }
}

impl Kernel for FakeKernel {
    fn dialect(&self) -> Dialect {
        self.dialect
    }

    fn observe(&mut self) -> Result<Observed, KernelError> {
        self.fail_if_told()?;
        self.readings += 1;
        Ok(self.state.clone())
    }

    fn commit(&mut self, plan: &Plan) -> Result<(), KernelError> {
        self.fail_if_told()?;
        plan.clash.check()?;
        if plan.is_empty() {
            return Ok(());
        }
        if let Some(intruder) = &mut self.intruder {
            intruder(&mut self.state);
            self.generation = self.generation.map(|number| number + 1);
        }
        let killed_after = self.killed_after.take();
        for (number, transaction) in self.transactions(plan).iter().enumerate() {
            if killed_after == Some(number) {
                return Err(KernelError::Fake("killed in the middle".into()));
            }
            let mut next = self.state.clone();
            furnish(&mut next, transaction);
            transaction.apply_strictly(&mut next).map_err(KernelError::Fake)?;
            check_targets(&next)?;
            self.state = next;
            self.generation = self.generation.map(|number| number + 1);
        }
        if killed_after.is_some() {
            return Err(KernelError::Fake("killed at the end".into()));
        }
        self.commits += 1;
        Ok(())
    }

    fn generation(&mut self) -> Result<Option<u32>, KernelError> {
        self.fail_if_told()?;
        Ok(self.generation)
    }

    fn generations_of(&self, plan: &Plan) -> u32 {
        u32::try_from(self.transactions(plan).len()).unwrap_or(u32::MAX)
    }
}

/// A kernel has its own chains in every table that anybody uses.
fn furnish(state: &mut Observed, transaction: &Plan) {
    for table in transaction.tables.keys() {
        let chains = state.tables.entry(*table).or_default();
        for builtin in Builtin::ALL {
            chains.entry(builtin.to_string()).or_default();
        }
    }
}

/// Every chain that is led to must exist by the end of the transaction. Chains are told from the
/// kernel's own targets by their dashes.
fn check_targets(state: &Observed) -> Result<(), KernelError> {
    for (table, chains) in &state.tables {
        for (chain, rules) in chains {
            let missing = rules
                .iter()
                .filter_map(|rule| target(rule))
                .find(|to| to.contains("--") && state.rules(*table, to).is_none());
            if let Some(missing) = missing {
                return Err(KernelError::Fake(format!(
                    "{chain} leads to {missing}, which is not there"
                )));
            }
            let unasked = rules.iter().flat_map(|rule| rule.split(' ')).find_map(|word| {
                word.strip_prefix('@').filter(|set| !state.sets.contains_key(*set))
            });
            if let Some(set) = unasked {
                return Err(KernelError::Fake(format!("{chain} asks {set}, which is not there")));
            }
        }
    }
    Ok(())
}
