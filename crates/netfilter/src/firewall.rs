//! A kernel and what is known of it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::{Dialect, Kernel, KernelError, Observed, Plan, Rendered, Ruleset, Scope};

/// A kernel that is read only when somebody else may have written: its ruleset has a number that every
/// writer raises, so after a commit of our own that raised it by just as much as it must, what is there
/// is what was there, changed as planned. A kernel without a number is read each time.
pub struct Firewall {
    kernel: Box<dyn Kernel>,
    known: Option<Known>,
    readings: u64,
    writing: Duration,
}

struct Known {
    observed: Observed,
    number: Option<u32>,
}

/// What came of a pass.
#[derive(Debug)]
pub struct Settled {
    /// What was done; empty if the kernel held already what was wanted.
    pub plan: Plan,
    /// Chains and sets that are not as wanted nonetheless: somebody else writes them as well.
    pub left: BTreeSet<String>,
    /// Whether somebody else had written anything since the last pass; `None` if the kernel cannot
    /// tell, or this is the first.
    pub moved: Option<bool>,
}

impl Firewall {
    /// Of which nothing is known yet.
    pub fn new(kernel: Box<dyn Kernel>) -> Self {
        Self { kernel, known: None, readings: 0, writing: Duration::ZERO }
    }

    /// How long all commits took until now, together with what they waited for.
    pub fn time_writing(&self) -> Duration {
        self.writing
    }

    /// The words the kernel is spoken to in.
    pub fn dialect(&self) -> Dialect {
        self.kernel.dialect()
    }

    /// How often the kernel was read as a whole.
    pub fn readings(&self) -> u64 {
        self.readings
    }

    /// What the kernel held when we last knew, without asking it.
    pub fn known(&self) -> Option<&Observed> {
        self.known.as_ref().map(|known| &known.observed)
    }

    /// Makes the next question read the kernel, whatever its number says.
    pub fn forget(&mut self) {
        self.known = None;
    }

    /// Whether somebody else has written since we last looked; `None` if the kernel cannot tell.
    pub fn has_moved(&mut self) -> Result<Option<bool>, KernelError> {
        let number = self.kernel.generation()?;
        let known = self.known.as_ref().and_then(|known| known.number);
        Ok(number.zip(known).map(|(now, known)| now != known))
    }

    /// What the kernel holds.
    pub fn observed(&mut self) -> Result<&Observed, KernelError> {
        if self.has_moved()? != Some(false) {
            self.known = None;
            self.read()?;
        }
        let known = self.known.as_ref().expect("was read, or has not moved since");
        Ok(&known.observed)
    }

    /// Reads the kernel. The number is asked for first: what changes meanwhile is then read again,
    /// rather than missed.
    fn read(&mut self) -> Result<(), KernelError> {
        let number = self.kernel.generation()?;
        let observed = self.kernel.observe()?;
        self.readings += 1;
        self.known = Some(Known { observed, number });
        Ok(())
    }

    /// Carries out a plan made from what was [`Self::observed`].
    pub fn commit(&mut self, plan: &Plan) -> Result<(), KernelError> {
        if plan.is_empty() {
            return Ok(());
        }
        plan.clash.check()?;
        // Whatever fails from here on, what is there is not known.
        let known = self.known.take();
        let began = Instant::now();
        let committed = self.kernel.commit(plan);
        self.writing += began.elapsed();
        committed?;
        let number = self.kernel.generation()?;
        let raised = self.kernel.generations_of(plan);
        if let Some(Known { mut observed, number: Some(before) }) = known
            && number == Some(before.wrapping_add(raised))
            && plan.apply(&mut observed).is_ok()
        {
            self.known = Some(Known { observed, number });
        }
        Ok(())
    }

    /// One whole pass: makes the kernel hold `wanted`, and says what it does not hold nonetheless.
    pub fn settle(&mut self, wanted: &Ruleset, scope: &Scope) -> Result<Settled, KernelError> {
        let rendered = Rendered::new(wanted, self.dialect());
        self.settle_rendered(&rendered, scope)
    }

    /// The same for what has been rendered already.
    pub fn settle_rendered(
        &mut self,
        wanted: &Rendered,
        scope: &Scope,
    ) -> Result<Settled, KernelError> {
        let moved = self.has_moved()?;
        let plan = Plan::new(wanted, self.observed()?, scope);
        if plan.is_empty() {
            self.share(wanted, None);
            return Ok(Settled { plan, left: BTreeSet::new(), moved });
        }
        self.commit(&plan)?;
        // What is known without reading is as planned.
        let left = match self.known {
            Some(_) => BTreeSet::new(),
            None => Plan::new(wanted, self.observed()?, scope).touched(),
        };
        self.share(wanted, None);
        Ok(Settled { plan, left, moved })
    }

    fn share(&mut self, wanted: &Rendered, before: Option<&Rendered>) {
        if let Some(known) = &mut self.known {
            known.observed.share(wanted, before);
        }
    }

    /// The same where the kernel was last settled on `before`, which costs what the two differ in, unless
    /// somebody else has written since, or something stands in the way.
    pub fn settle_from(
        &mut self,
        before: &Rendered,
        wanted: &Rendered,
        scope: &Scope,
    ) -> Result<Settled, KernelError> {
        if self.has_moved()? == Some(false)
            && let Some(plan) = Plan::between(before, wanted, scope)
        {
            match self.commit(&plan) {
                Ok(()) if self.known.is_some() => {
                    self.share(wanted, Some(before));
                    return Ok(Settled { plan, left: BTreeSet::new(), moved: Some(false) });
                }
                Err(error) if error.is_locked_out() => return Err(error),
                // What stands in the way is seen when the kernel is read.
                _ => {}
            }
        }
        self.settle_rendered(wanted, scope)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::{Action, ChainName, FakeKernel, Mark, Rule, Table};

    fn wanted(mark: u32) -> Ruleset {
        let mut wanted = Ruleset::new();
        let chain: ChainName = "vpa--x".parse().unwrap();
        let rule = Rule::new(Action::Accept).mark(Mark::exactly(mark));
        wanted.chain(Table::Filter, chain, vec![rule]);
        wanted
    }

    fn firewall(generation: Option<u32>) -> (Firewall, Arc<Mutex<FakeKernel>>) {
        let kernel = Arc::new(Mutex::new(FakeKernel { generation, ..FakeKernel::default() }));
        (Firewall::new(Box::new(kernel.clone())), kernel)
    }

    fn settle(firewall: &mut Firewall, mark: u32) -> Settled {
        firewall.settle(&wanted(mark), &Scope::prefix("vpa--")).unwrap()
    }

    #[test]
    fn a_kernel_nobody_else_writes_is_read_once() {
        let (mut firewall, kernel) = firewall(Some(7));
        for mark in 1..5 {
            let settled = settle(&mut firewall, mark);
            assert!(!settled.plan.is_empty() && settled.left.is_empty());
        }
        assert!(settle(&mut firewall, 4).plan.is_empty());
        assert_eq!(kernel.lock().unwrap().readings, 1);
        assert_eq!(kernel.lock().unwrap().commits, 4);
    }

    #[test]
    fn what_somebody_else_changes_is_noticed_by_the_number() {
        let (mut firewall, kernel) = firewall(Some(7));
        settle(&mut firewall, 1);
        {
            let mut kernel = kernel.lock().unwrap();
            kernel.state = Observed::default();
            kernel.generation = Some(99);
        }
        let settled = settle(&mut firewall, 1);
        assert_eq!(settled.moved, Some(true));
        assert!(settled.plan.touched().contains("vpa--x"));
    }

    #[test]
    fn a_kernel_without_a_number_is_read_before_and_after() {
        let (mut firewall, kernel) = firewall(None);
        settle(&mut firewall, 1);
        kernel.lock().unwrap().state = Observed::default();
        let settled = settle(&mut firewall, 1);
        assert_eq!(settled.moved, None);
        assert!(!settled.plan.is_empty());
        assert_eq!(kernel.lock().unwrap().readings, 4);
    }

    #[test]
    fn who_writes_between_looking_and_writing_is_found_out() {
        let (mut firewall, kernel) = firewall(Some(7));
        settle(&mut firewall, 1);
        kernel.lock().unwrap().intruder = Some(Box::new(|state| {
            let chains = state.tables.entry(Table::Filter).or_default();
            chains.insert("vpa--theirs".into(), Arc::default());
        }));
        let settled = settle(&mut firewall, 2);
        assert_eq!(settled.left, ["vpa--theirs".to_owned()].into());
    }

    #[test]
    fn a_pass_that_failed_leaves_nothing_known() {
        let (mut firewall, kernel) = firewall(Some(7));
        settle(&mut firewall, 1);
        kernel.lock().unwrap().killed_after = Some(0);
        assert!(firewall.settle(&wanted(2), &Scope::prefix("vpa--")).is_err());
        assert!(!settle(&mut firewall, 2).plan.is_empty());
        assert_eq!(kernel.lock().unwrap().readings, 2);
    }
}
