use std::collections::{BTreeMap, BTreeSet};

use imbl::OrdSet;

use crate::{
    Dialect, Element, Observed, Place, Rendered, Scope, SetKind, Table,
    clash::Clash,
    render::{Lines, nft},
};

/// How many rules of a chain may differ for them to be changed one by one, if the kernel can: a
/// deletion costs more than the rest of a small chain does.
const FEW: usize = 3;

/// The difference between what is wanted and what is there, as steps that get from one to the other.
/// Empty when there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub(crate) dialect: Dialect,
    pub(crate) tables: BTreeMap<Table, Vec<Step>>,
    pub(crate) sets: Vec<SetStep>,
    /// Tables that are to be asked again, before all else: no chain can be hooked while one awakes.
    pub(crate) wakes: BTreeSet<Table>,
    /// Why no kernel carries it out, though it may have no steps.
    pub(crate) clash: Clash,
}

/// One line of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Creates a chain, or empties it.
    Declare(String),
    /// Deletes the first rule with this text from a chain.
    Delete(String, String),
    /// Puts a rule in front of all others of a chain.
    Prepend(String, String),
    /// Puts a rule behind all others of a chain.
    Append(String, String),
    /// Removes an empty chain that nothing leads to.
    Remove(String),
}

/// One line of a transaction about a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetStep {
    /// Creates it.
    Create(String, SetKind),
    /// Creates it in place of one of another kind.
    Replace(String, SetKind),
    /// Takes all elements out of it.
    Flush(String, SetKind),
    /// Takes elements out of it.
    Delete(String, Vec<Element>),
    /// Puts elements into it.
    Add(String, Vec<Element>),
    /// Removes it, whatever it holds. Nothing asks it any more.
    Drop(String),
}

// === impl Plan ===

impl Plan {
    /// The steps from `observed` to `wanted` that touch only what differs and only what `scope` owns:
    ///
    /// - a chain whose text differs in any way is emptied and filled again, in the same transaction;
    ///   one whose rules have no order is changed rule by rule if few differ;
    /// - of a set, the elements that differ are taken out and put in;
    /// - a hook that is missing is put in place, one that stands twice or in the wrong place is moved;
    /// - a rule of anybody else's that leads to a chain about to go, goes with it;
    /// - a chain or set in scope that nobody wants is removed;
    /// - a table that is dormant is woken.
    ///
    /// Committing the plan and observing again gives an empty plan. Where two things are wanted under one
    /// name, it has no steps, and cannot be committed ([`crate::KernelError::Clash`]).
    pub fn new(wanted: &Rendered, observed: &Observed, scope: &Scope) -> Self {
        let mut plan = Self { clash: wanted.clash.clone(), ..Self::nothing(wanted.dialect) };
        if !plan.clash.is_none() {
            return plan;
        }
        plan.wakes.clone_from(&observed.asleep);
        let unfit = unfit(wanted, observed);
        plan.sets = set_steps(wanted, observed, scope, &unfit);
        for table in Table::ALL {
            let steps = steps(table, wanted, observed, scope, &unfit);
            if !steps.is_empty() {
                plan.tables.insert(table, steps);
            }
        }
        plan
    }

    /// Nothing to do.
    pub fn nothing(dialect: Dialect) -> Self {
        let (tables, sets) = (BTreeMap::new(), Vec::new());
        Self { dialect, tables, sets, wakes: BTreeSet::new(), clash: Clash::default() }
    }

    /// These steps in one table, for whoever knows what is to go without knowing what is wanted.
    pub fn of(dialect: Dialect, table: Table, steps: Vec<Step>) -> Self {
        let tables = if steps.is_empty() { BTreeMap::new() } else { [(table, steps)].into() };
        Self { tables, ..Self::nothing(dialect) }
    }

    /// Does all of another plan as well, which is about chains and sets of its own.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for (table, steps) in other.tables {
            self.tables.entry(table).or_default().extend(steps);
        }
        self.sets.extend(other.sets);
        self.wakes.extend(other.wakes);
        self.clash = self.clash.or(other.clash);
        self
    }

    /// Takes these elements out of a set as well.
    #[must_use]
    pub fn without(mut self, set: &str, elements: Vec<Element>) -> Self {
        if !elements.is_empty() {
            self.sets.push(SetStep::Delete(set.to_owned(), elements));
        }
        self
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.is_nothing_but_waking() && self.wakes.is_empty()
    }

    /// Whether what is there is right, if only it is asked.
    pub(crate) fn is_nothing_but_waking(&self) -> bool {
        self.tables.is_empty() && self.sets.is_empty() && self.clash.is_none()
    }

    /// Whether any chain is created, changed or removed.
    pub fn touches_chains(&self) -> bool {
        !self.tables.is_empty()
    }

    /// How many lines the transaction has; each element of a set counts as one.
    pub fn len(&self) -> usize {
        let elements = |step: &SetStep| match step {
            SetStep::Create(..) | SetStep::Replace(..) | SetStep::Flush(..) | SetStep::Drop(_) => 1,
            SetStep::Add(_, elements) | SetStep::Delete(_, elements) => elements.len(),
        };
        self.tables.values().map(Vec::len).sum::<usize>()
            + self.sets.iter().map(elements).sum::<usize>()
            + self.wakes.len()
    }

    /// The chains and sets that are created, changed or removed, and the tables that are woken; for logs.
    pub fn touched(&self) -> BTreeSet<String> {
        let chains = self.tables.values().flatten().map(|step| match step {
            Step::Declare(chain)
            | Step::Remove(chain)
            | Step::Delete(chain, _)
            | Step::Prepend(chain, _)
            | Step::Append(chain, _) => chain.clone(),
        });
        let sets = self.sets.iter().map(|step| match step {
            SetStep::Create(set, _)
            | SetStep::Replace(set, _)
            | SetStep::Flush(set, _)
            | SetStep::Add(set, _)
            | SetStep::Delete(set, _)
            | SetStep::Drop(set) => set.clone(),
        });
        let tables = self.wakes.iter().map(|table| nft::table(*table).to_owned());
        chains.chain(sets).chain(tables).collect()
    }

    /// What `observed` becomes once the plan is carried out; an error says why no kernel would, as far
    /// as is found without looking at what the plan is not about.
    pub(crate) fn apply(&self, observed: &mut Observed) -> Result<(), String> {
        self.carry_out(observed, |_, _, _| Ok(()), |_, _| Ok(()))
    }

    /// The same as a kernel does it, which removes nothing that is in use.
    pub(crate) fn apply_strictly(&self, observed: &mut Observed) -> Result<(), String> {
        let chain = |observed: &Observed, table, chain: &str| match observed.is_led_to(table, chain)
        {
            true => Err(format!("{chain} is still led to")),
            false => Ok(()),
        };
        let set = |observed: &Observed, set: &str| match observed.is_asked(set) {
            true => Err(format!("set {set} is still asked")),
            false => Ok(()),
        };
        self.carry_out(observed, chain, set)
    }

    /// `chain` and `set` are asked whether one may go.
    fn carry_out(
        &self,
        observed: &mut Observed,
        chain: impl Fn(&Observed, Table, &str) -> Result<(), String>,
        set: impl Fn(&Observed, &str) -> Result<(), String>,
    ) -> Result<(), String> {
        observed.asleep.retain(|table| !self.wakes.contains(table));
        for (table, steps) in &self.tables {
            for step in steps {
                if let Step::Remove(name) = step {
                    chain(observed, *table, name)?;
                }
                observed.apply(*table, step)?;
            }
        }
        let last = |step: &&SetStep| matches!(step, SetStep::Drop(_));
        self.sets.iter().filter(|s| !last(s)).try_for_each(|step| observed.apply_to_set(step))?;
        for step in &self.sets {
            if let SetStep::Drop(name) = step {
                set(observed, name)?;
                observed.apply_to_set(step)?;
            }
        }
        Ok(())
    }
}

/// The sets that are there under a name we want for something else.
fn unfit<'a>(wanted: &'a Rendered, observed: &Observed) -> Vec<&'a String> {
    let unfit = |(name, (kind, _)): &(&String, &(SetKind, OrdSet<Element>))| {
        observed.sets.get(*name).is_some_and(|there| there.kind != Some(*kind))
    };
    wanted.sets.iter().filter(unfit).map(|(name, _)| name).collect()
}

fn set_steps(
    wanted: &Rendered,
    observed: &Observed,
    scope: &Scope,
    unfit: &[&String],
) -> Vec<SetStep> {
    let mut steps = Vec::new();
    for (name, (kind, elements)) in &wanted.sets {
        let none = OrdSet::new();
        let there = match observed.sets.get(name) {
            Some(_) if unfit.contains(&name) => {
                steps.push(SetStep::Replace(name.clone(), *kind));
                &none
            }
            Some(there) => &there.elements,
            None => {
                steps.push(SetStep::Create(name.clone(), *kind));
                &none
            }
        };
        // What the kernel counts there is its own.
        if matches!(kind, SetKind::Meter(..)) || there == elements {
            continue;
        }
        // What nobody here would have written, nobody here knows to name.
        if there.iter().any(|element| matches!(element, Element::Foreign(_))) {
            steps.push(SetStep::Flush(name.clone(), *kind));
            steps.push(SetStep::Add(name.clone(), elements.iter().cloned().collect()));
            steps.retain(|step| !matches!(step, SetStep::Add(_, elements) if elements.is_empty()));
            continue;
        }
        let gone = there.iter().filter(|element| !elements.contains(*element)).cloned().collect();
        let new = elements.iter().filter(|element| !there.contains(*element)).cloned().collect();
        steps.extend(element_steps(name, gone, new));
    }
    let stale = |name: &&String| scope.owns_set(name) && !wanted.sets.contains_key(*name);
    let stale: Vec<_> = observed.sets.iter().filter(|(name, _)| stale(name)).collect();
    steps.extend(stale.into_iter().flat_map(|(name, there)| removal(name, there.kind)));
    steps
}

fn element_steps(
    set: &str,
    gone: Vec<Element>,
    new: Vec<Element>,
) -> impl Iterator<Item = SetStep> {
    let delete = (!gone.is_empty()).then(|| SetStep::Delete(set.to_owned(), gone));
    let add = (!new.is_empty()).then(|| SetStep::Add(set.to_owned(), new));
    delete.into_iter().chain(add)
}

fn removal(set: &str, kind: Option<SetKind>) -> impl Iterator<Item = SetStep> {
    // What leads to a chain holds it, so it goes before the chain does.
    let doors = kind.filter(|kind| matches!(kind, SetKind::Doors(_)));
    let flush = doors.map(|kind| SetStep::Flush(set.to_owned(), kind));
    flush.into_iter().chain([SetStep::Drop(set.to_owned())])
}

fn steps(
    table: Table,
    wanted: &Rendered,
    observed: &Observed,
    scope: &Scope,
    unfit: &[&String],
) -> Vec<Step> {
    let of_table = wanted.chains.iter().filter(|((t, _), _)| *t == table);
    let chains: BTreeMap<&str, &Lines> =
        of_table.map(|((_, name), lines)| (name.as_str(), &**lines)).collect();
    let stale = |name: &&str| scope.owns_chain(name) && !chains.contains_key(name);
    let unwanted: Vec<&str> = observed.chains(table).filter(stale).collect();

    let mut declarations = Vec::new();
    let mut rules = Vec::new();
    for (name, lines) in &chains {
        let there = observed.rules(table, name);
        // A set can be replaced while no rule asks it.
        let asks_unfit = lines.rules.iter().any(|rule| asks_any(rule, unfit));
        let difference = if asks_unfit { Difference::Much } else { difference(there, lines) };
        match difference {
            Difference::None => {}
            Difference::Few { gone, new } => {
                let delete = |rule: &String| Step::Delete((*name).to_owned(), rule.clone());
                let append = |rule: &String| Step::Append((*name).to_owned(), rule.clone());
                rules.extend(new.into_iter().map(append));
                rules.extend(gone.into_iter().map(delete));
            }
            Difference::Much => {
                declarations.push(Step::Declare((*name).to_owned()));
                let append = |rule: &String| Step::Append((*name).to_owned(), rule.clone());
                rules.extend(lines.rules.iter().map(append));
            }
        }
    }
    // Declarations come first, so that rules may lead to chains in any order; a chain that goes is
    // emptied here, so that it no longer leads anywhere when others go.
    let mut steps = declarations;
    steps.extend(unwanted.iter().map(|name| Step::Declare((*name).to_owned())));
    steps.extend(rules);
    steps.extend(hook_steps(table, wanted, observed, scope));
    steps.extend(unwanted.iter().map(|name| Step::Remove((*name).to_owned())));
    steps
}

fn asks_any(rule: &str, sets: &[&String]) -> bool {
    let words = || rule.split(' ').filter_map(|word| word.strip_prefix('@'));
    sets.iter().any(|set| words().any(|word| word == set.as_str()))
}

/// How a chain differs from what is wanted.
enum Difference<'a> {
    None,
    /// In these rules, whose order says nothing.
    Few {
        gone: Vec<&'a String>,
        new: Vec<&'a String>,
    },
    Much,
}

fn difference<'a>(there: Option<&'a [String]>, wanted: &'a Lines) -> Difference<'a> {
    let Some(there) = there else { return Difference::Much };
    if there == wanted.rules.as_slice() {
        return Difference::None;
    }
    if !wanted.unordered {
        return Difference::Much;
    }
    let (mut have, mut want): (Vec<_>, Vec<_>) =
        (there.iter().collect(), wanted.rules.iter().collect());
    have.sort_unstable();
    want.sort_unstable();
    let (mut gone, mut new) = (Vec::new(), Vec::new());
    let (mut have, mut want) = (have.into_iter().peekable(), want.into_iter().peekable());
    loop {
        match (have.peek(), want.peek()) {
            (None, None) => break,
            (Some(a), Some(b)) if a == b => {
                have.next();
                want.next();
            }
            (Some(a), Some(b)) if a < b => gone.extend(have.next()),
            (Some(_), None) => gone.extend(have.next()),
            (_, Some(_)) => new.extend(want.next()),
        }
    }
    if gone.is_empty() && new.is_empty() {
        Difference::None
    } else if gone.len() + new.len() <= FEW {
        Difference::Few { gone, new }
    } else {
        Difference::Much
    }
}

/// The steps for rules of ours in chains of others.
fn hook_steps(table: Table, wanted: &Rendered, observed: &Observed, scope: &Scope) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut parents: BTreeSet<String> =
        observed.chains(table).filter(|name| !scope.owns_chain(name)).map(str::to_owned).collect();
    let hooks: Vec<_> = wanted.hooks.iter().filter(|(t, _)| *t == table).map(|(_, h)| h).collect();
    parents.extend(hooks.iter().map(|hook| hook.parent.clone()));

    for parent in parents {
        let there = observed.rules(table, &parent).unwrap_or_default();
        let here = || hooks.iter().filter(|hook| hook.parent == parent);
        let first: Vec<String> =
            here().filter(|hook| hook.place == Place::First).map(|h| h.rule.clone()).collect();
        let last: Vec<String> =
            here().filter(|hook| hook.place == Place::Last).map(|h| h.rule.clone()).collect();

        let in_front = there.starts_with(&first);
        let mut kept: Vec<&String> = Vec::new();
        for (position, rule) in there.iter().enumerate() {
            let stays = if first.contains(rule) {
                in_front && position < first.len()
            } else {
                last.contains(rule) && !kept.contains(&rule)
            };
            if stays {
                kept.push(rule);
            } else if scope.owns_rule(rule) {
                steps.push(Step::Delete(parent.clone(), rule.clone()));
            }
        }
        if !in_front {
            let prepend = |rule: &String| Step::Prepend(parent.clone(), rule.clone());
            steps.extend(first.iter().rev().map(prepend));
        }
        let missing = last.iter().filter(|rule| !kept.contains(rule));
        steps.extend(missing.map(|rule| Step::Append(parent.clone(), rule.clone())));
    }
    steps
}

mod between;
mod script;
#[cfg(test)]
mod tests;
