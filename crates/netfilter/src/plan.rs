use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
};

use crate::{ChainName, Observed, Place, Ruleset, Table, observed::target, rule::saved};

/// What belongs to one writer: it may create, change and remove these and nothing else.
///
/// Everything in scope can be recognised by a process with no memory: chains by their names, rules in
/// shared chains by the chain they lead to, or by their comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    chains: Chains,
    comment: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Chains {
    Prefix(&'static str),
    Named(BTreeSet<ChainName>),
}

/// The difference between what is wanted and what is there, as steps that get from one to the other.
/// Empty when there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub(crate) tables: BTreeMap<Table, Vec<Step>>,
}

/// One line of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Creates a chain, or empties it.
    Declare(ChainName),
    /// Deletes the first rule with this text from a chain.
    Delete(String, String),
    /// Puts a rule in front of all others of a chain.
    Prepend(String, String),
    /// Puts a rule behind all others of a chain.
    Append(String, String),
    /// Removes an empty chain that nothing leads to.
    Remove(ChainName),
}

// === impl Scope ===

impl Scope {
    /// All chains whose names begin with `prefix`.
    pub fn prefix(prefix: &'static str) -> Self {
        Self { chains: Chains::Prefix(prefix), comment: None }
    }

    /// Just these chains.
    pub fn named(chains: impl IntoIterator<Item = ChainName>) -> Self {
        Self { chains: Chains::Named(chains.into_iter().collect()), comment: None }
    }

    /// And the rules in shared chains that carry this comment.
    #[must_use]
    pub fn with_comment(mut self, comment: &str) -> Self {
        self.comment = Some(format!("--comment {} ", saved(comment)));
        self
    }

    fn owns_chain(&self, name: &str) -> bool {
        match &self.chains {
            Chains::Prefix(prefix) => name.starts_with(prefix),
            Chains::Named(names) => names.iter().any(|owned| owned.as_str() == name),
        }
    }

    fn owns_rule(&self, rule: &str) -> bool {
        target(rule).is_some_and(|chain| self.owns_chain(chain))
            || self.comment.as_ref().is_some_and(|comment| rule.contains(comment.as_str()))
    }
}

// === impl Plan ===

impl Plan {
    /// The steps from `observed` to `wanted` that touch only what differs and only what `scope` owns:
    ///
    /// - a chain whose text differs in any way is emptied and filled again, in the same transaction;
    /// - a hook that is missing is put in place, one that stands twice or in the wrong place is moved;
    /// - a rule of anybody else's that leads to a chain about to go, goes with it;
    /// - a chain in scope that nobody wants is removed.
    ///
    /// Committing the plan and observing again gives an empty plan.
    pub fn new(wanted: &Ruleset, observed: &Observed, scope: &Scope) -> Self {
        let mut plan = Self::default();
        for table in Table::ALL {
            let steps = steps(table, wanted, observed, scope);
            if !steps.is_empty() {
                plan.tables.insert(table, steps);
            }
        }
        plan
    }

    /// These steps in one table, for whoever knows what is to go without knowing what is wanted.
    pub fn of(table: Table, steps: Vec<Step>) -> Self {
        let tables = if steps.is_empty() { BTreeMap::new() } else { [(table, steps)].into() };
        Self { tables }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// How many lines the transaction has.
    pub fn len(&self) -> usize {
        self.tables.values().map(Vec::len).sum()
    }

    /// The chains that are created, changed or removed; for logs.
    pub fn touched(&self) -> BTreeSet<String> {
        let names = self.tables.values().flatten().map(|step| match step {
            Step::Declare(chain) | Step::Remove(chain) => chain.to_string(),
            Step::Delete(chain, _) | Step::Prepend(chain, _) | Step::Append(chain, _) => {
                chain.clone()
            }
        });
        names.collect()
    }

    /// The input of `iptables-restore --noflush`.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (table, steps) in &self.tables {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "*{table}");
            steps.iter().for_each(|step| {
                let _ = writeln!(text, "{step}");
            });
            text.push_str("COMMIT\n");
        }
        text
    }
}

fn steps(table: Table, wanted: &Ruleset, observed: &Observed, scope: &Scope) -> Vec<Step> {
    let chains: BTreeMap<&ChainName, Vec<String>> = wanted
        .chains
        .iter()
        .filter(|((t, _), _)| *t == table)
        .map(|((_, name), rules)| (name, rules.iter().map(ToString::to_string).collect()))
        .collect();
    let stale = |name: &&str| scope.owns_chain(name) && !chains.keys().any(|c| c.as_str() == *name);
    let unwanted: Vec<ChainName> =
        observed.chains(table).filter(stale).filter_map(|name| name.parse().ok()).collect();
    let changed: Vec<_> = chains
        .iter()
        .filter(|(name, rules)| observed.rules(table, name.as_str()) != Some(rules.as_slice()))
        .collect();

    let mut steps = Vec::new();
    // Declarations come first, so that rules may lead to chains in any order; a chain that goes is
    // emptied here, so that it no longer leads anywhere when others go.
    steps.extend(changed.iter().map(|(name, _)| Step::Declare((**name).clone())));
    steps.extend(unwanted.iter().cloned().map(Step::Declare));
    for (name, rules) in &changed {
        let append = |rule: &String| Step::Append(name.to_string(), rule.clone());
        steps.extend(rules.iter().map(append));
    }
    steps.extend(hook_steps(table, wanted, observed, scope));
    steps.extend(unwanted.into_iter().map(Step::Remove));
    steps
}

/// The steps for rules of ours in chains of others.
fn hook_steps(table: Table, wanted: &Ruleset, observed: &Observed, scope: &Scope) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut parents: BTreeSet<String> =
        observed.chains(table).filter(|name| !scope.owns_chain(name)).map(str::to_owned).collect();
    let hooks: Vec<_> = wanted.hooks.iter().filter(|(t, _)| *t == table).map(|(_, h)| h).collect();
    parents.extend(hooks.iter().map(|hook| hook.parent.to_string()));

    for parent in parents {
        let there = observed.rules(table, &parent).unwrap_or_default();
        let here = || hooks.iter().filter(|hook| hook.parent.to_string() == parent);
        let first: Vec<String> =
            here().filter(|hook| hook.place == Place::First).map(|h| h.rule.to_string()).collect();
        let last: Vec<String> =
            here().filter(|hook| hook.place == Place::Last).map(|h| h.rule.to_string()).collect();

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

/// One line of `iptables-restore`'s input.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Declare(chain) => write!(f, ":{chain} - [0:0]"),
            Self::Delete(chain, rule) => write!(f, "-D {chain} {rule}"),
            Self::Prepend(chain, rule) => write!(f, "-I {chain} 1 {rule}"),
            Self::Append(chain, rule) => write!(f, "-A {chain} {rule}"),
            Self::Remove(chain) => write!(f, "-X {chain}"),
        }
    }
}

#[cfg(test)]
mod tests;
