use crate::{ChainName, Kernel, KernelError, Observed, Plan, Step, Table, observed::target};

/// A kernel in memory. It refuses what a kernel refuses (deleting a rule that is not there, leading to
/// a chain that is not there, removing a chain that is still led to), rolls a failed table back, counts
/// commits, and fails when told to.
#[derive(Debug, Default)]
pub struct FakeKernel {
    /// What it holds; tests vandalise it.
    pub state: Observed,
    /// How many plans that were not empty it has carried out.
    pub commits: usize,
    /// The next so many calls fail.
    pub failures: usize,
}

impl FakeKernel {
    fn fail_if_told(&mut self) -> Result<(), KernelError> {
        if self.failures == 0 {
            return Ok(());
        }
        self.failures -= 1;
        Err(KernelError::Fake("told to fail".into()))
    }
}

impl Kernel for FakeKernel {
    fn observe(&mut self) -> Result<Observed, KernelError> {
        self.fail_if_told()?;
        Ok(self.state.clone())
    }

    fn commit(&mut self, plan: &Plan) -> Result<(), KernelError> {
        self.fail_if_told()?;
        if plan.is_empty() {
            return Ok(());
        }
        for (table, steps) in &plan.tables {
            let mut next = self.state.clone();
            steps.iter().try_for_each(|step| apply(&mut next, *table, step))?;
            check_targets(&next, *table)?;
            self.state = next;
        }
        self.commits += 1;
        Ok(())
    }
}

fn apply(state: &mut Observed, table: Table, step: &Step) -> Result<(), KernelError> {
    let refuse = |what: String| Err(KernelError::Fake(what));
    let chains = state.tables.entry(table).or_default();
    for builtin in ["INPUT", "FORWARD", "OUTPUT", "PREROUTING", "POSTROUTING"] {
        chains.entry(builtin.into()).or_default();
    }
    match step {
        Step::Declare(chain) => {
            chains.insert(chain.to_string(), Vec::new());
        }
        Step::Delete(chain, rule) => {
            let rules = chains.entry(chain.clone()).or_default();
            match rules.iter().position(|there| there == rule) {
                Some(position) => drop(rules.remove(position)),
                None => return refuse(format!("no rule {rule:?} in {chain}")),
            }
        }
        Step::Prepend(chain, rule) | Step::Append(chain, rule) => {
            let Some(rules) = chains.get_mut(chain) else {
                return refuse(format!("no chain {chain}"));
            };
            let front = matches!(step, Step::Prepend(..));
            rules.insert(if front { 0 } else { rules.len() }, rule.clone());
        }
        Step::Remove(chain) => {
            let leads_here = |rule: &String| target(rule) == Some(chain.as_str());
            if chains.values().flatten().any(leads_here) {
                return refuse(format!("{chain} is still led to"));
            }
            match chains.remove(chain.as_str()) {
                Some(rules) if rules.is_empty() => {}
                _ => return refuse(format!("{chain} is not there, or not empty")),
            }
        }
    }
    Ok(())
}

/// Every chain that is led to must exist by the end of the transaction. Chains are told from the
/// kernel's own targets by their dashes or lower-case letters.
fn check_targets(state: &Observed, table: Table) -> Result<(), KernelError> {
    let chains = state.tables.get(&table).into_iter().flatten();
    for (chain, rules) in chains {
        let missing = rules.iter().filter_map(|rule| target(rule)).find(|to| {
            let ours = to.parse::<ChainName>().is_ok() && to.contains("--");
            ours && state.rules(table, to).is_none()
        });
        if let Some(missing) = missing {
            return Err(KernelError::Fake(format!(
                "{chain} leads to {missing}, which is not there"
            )));
        }
    }
    Ok(())
}
