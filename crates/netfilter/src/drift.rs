//! What somebody else has changed, in words an operator can act on.

use std::{collections::BTreeSet, fmt::Display};

use imbl::OrdSet;

use crate::{
    Element, Observed, Place, Rendered, Scope, SetKind, Table,
    observed::target,
    render::{Lines, nft},
};

/// How many rules or elements are told of one change.
const TOLD: usize = 2;
/// How much of each.
const LENGTH: usize = 160;

/// A chain or set that is not as it is wanted, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The chain or set.
    pub chain: String,
    /// What is wrong with it.
    pub what: String,
}

impl Drift {
    /// How `observed` differs from `wanted` in what `scope` owns; nothing exactly where the plan between
    /// the two does nothing.
    pub fn between(wanted: &Rendered, observed: &Observed, scope: &Scope) -> Vec<Self> {
        let dormant = |table: &Table| {
            at(nft::table(*table))("the table was dormant: no packet came to it".to_owned())
        };
        let mut found: Vec<_> = observed.asleep.iter().map(dormant).collect();
        for ((table, chain), lines) in &wanted.chains {
            found.extend(of_chain(observed.rules(*table, chain), lines).map(at(chain)));
        }
        for table in Table::ALL {
            let is_wanted = |chain: &str| wanted.chains.contains_key(&(table, chain.to_owned()));
            let stale = observed.chains(table).filter(|c| scope.owns_chain(c) && !is_wanted(c));
            found.extend(stale.map(|chain| at(chain)("the chain is not one of ours".to_owned())));
            found.extend(of_hooks(table, wanted, observed, scope));
        }
        for (set, (kind, elements)) in &wanted.sets {
            let what = match observed.sets.get(set) {
                None => Some(format!("the {} was gone", kind.noun())),
                Some(there) if there.kind != Some(*kind) => {
                    Some(format!("it was no {} of ours", kind.noun()))
                }
                // What the kernel counts there is its own.
                Some(_) if matches!(kind, SetKind::Meter(..)) => None,
                Some(there) => changes(
                    "element",
                    &missing(elements, &there.elements),
                    &missing(&there.elements, elements),
                ),
            };
            found.extend(what.map(at(set)));
        }
        let stale = observed.sets().filter(|s| scope.owns_set(s) && !wanted.sets.contains_key(*s));
        found.extend(stale.map(|set| at(set)("the set is not one of ours".to_owned())));
        found
    }
}

impl Observed {
    /// The chains that a rule of a table, or a map, leads to.
    pub fn led_to(&self, table: Table) -> BTreeSet<&str> {
        let chains = self.chains(table);
        let rules = chains.flat_map(|chain| self.rules(table, chain).unwrap_or_default());
        let of_maps = self.sets.values().flat_map(|set| &set.elements);
        let doors = of_maps.filter_map(|element| match element {
            Element::Door(_, chain) => {
                Some(chain.split_once('/').map_or(&**chain, |(_, chain)| chain))
            }
            _ => None,
        });
        rules.filter_map(|rule| target(rule)).chain(doors).collect()
    }
}

/// What of `some` is not in `others`.
fn missing<'a>(some: &'a OrdSet<Element>, others: &OrdSet<Element>) -> Vec<&'a Element> {
    some.iter().filter(|element| !others.contains(*element)).collect()
}

fn at(chain: &str) -> impl Fn(String) -> Drift {
    move |what| Drift { chain: chain.to_owned(), what }
}

fn of_chain(there: Option<&[String]>, wanted: &Lines) -> Option<String> {
    let Some(there) = there else { return Some("the chain was gone".to_owned()) };
    if there == wanted.rules.as_slice() {
        return None;
    }
    let foreign = beyond(there, &wanted.rules);
    let what = changes("rule", &beyond(&wanted.rules, there), &foreign);
    let reordered = !wanted.unordered && there != wanted.rules.as_slice();
    what.or_else(|| reordered.then(|| "its rules stood in another order".to_owned()))
}

/// What of `some` is not in `others`, as often as it is there too often.
fn beyond<'a>(some: &'a [String], others: &[String]) -> Vec<&'a String> {
    let mut others: Vec<_> = others.iter().collect();
    others.sort_unstable();
    let mut some: Vec<_> = some.iter().collect();
    some.sort_unstable();
    let mut others = others.into_iter().peekable();
    some.retain(|one| {
        while others.next_if(|other| other < one).is_some() {}
        others.next_if_eq(one).is_none()
    });
    some
}

fn of_hooks(
    table: Table,
    wanted: &Rendered,
    observed: &Observed,
    scope: &Scope,
) -> impl Iterator<Item = Drift> {
    let hooks: Vec<_> = wanted.hooks.iter().filter(|(t, _)| *t == table).map(|(_, h)| h).collect();
    let others = observed.chains(table).filter(|name| !scope.owns_chain(name));
    let parents: BTreeSet<&str> =
        others.chain(hooks.iter().map(|hook| hook.parent.as_str())).collect();
    let mut found = Vec::new();
    for parent in parents {
        let there = observed.rules(table, parent).unwrap_or_default();
        let here: Vec<_> = hooks.iter().filter(|hook| hook.parent == parent).collect();
        let rules: Vec<_> = here.iter().map(|hook| hook.rule.clone()).collect();
        // What is wanted need not be ours to take away.
        let counts = |rule: &&String| scope.owns_rule(rule) || rules.contains(rule);
        let ours: Vec<_> = there.iter().filter(counts).cloned().collect();
        let what = changes("rule", &beyond(&rules, &ours), &beyond(&ours, &rules));
        let first: Vec<_> =
            here.iter().filter(|h| h.place == Place::First).map(|h| h.rule.clone()).collect();
        let behind = || {
            let is_behind = !there.starts_with(&first);
            is_behind.then(|| "other rules stood in front of ours".to_owned())
        };
        found.extend(what.or_else(behind).map(at(parent)));
    }
    found.into_iter()
}

/// What is missing and what is foreign, the first of each in full.
fn changes<T: Display>(noun: &str, missing: &[T], foreign: &[T]) -> Option<String> {
    let told = |what: &str, all: &[T]| {
        let first = all.iter().take(TOLD).map(|one| {
            let text = one.to_string();
            let short: String = text.chars().take(LENGTH).collect();
            if short.len() < text.len() { format!("`{short}…`") } else { format!("`{short}`") }
        });
        let first: Vec<_> = first.collect();
        let more = match all.len().saturating_sub(TOLD) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let plural = if all.len() == 1 { "" } else { "s" };
        let list = first.join(", ");
        (!all.is_empty()).then(|| format!("{what} {noun}{plural}: {list}{more}"))
    };
    let told: Vec<_> =
        [told("missing", missing), told("foreign", foreign)].into_iter().flatten().collect();
    (!told.is_empty()).then(|| told.join("; "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::sync::Arc;

    use super::*;
    use crate::{
        Action, Allow, Builtin, ChainName, Dialect, Element, FakeKernel, Kernel, Mark, Plan, Rule,
        Ruleset, SetBody,
    };

    fn wanted() -> Ruleset {
        let mut wanted = Ruleset::new();
        let chain: ChainName = "vpa--x".parse().unwrap();
        let rules = (1..4).map(|mark| Rule::new(Action::Accept).mark(Mark::exactly(mark)));
        wanted.chain(Table::Filter, chain.clone(), rules.collect());
        let jump = Rule::new(Action::Jump(chain));
        wanted.hook(Table::Filter, Builtin::Forward, Place::First, jump.clone());
        // In front of it comes the operators' chain.
        wanted.hook(Table::Filter, Builtin::Input, Place::Last, jump);
        wanted.set("vpa--s".parse().unwrap(), SetBody::Allow(Allow::default()));
        wanted
    }

    /// What is told of a kernel that holds what is wanted, after `vandal`.
    fn told(vandal: impl FnOnce(&mut Observed)) -> Vec<(String, String)> {
        let mut kernel = FakeKernel::speaking(Dialect::Nft);
        let scope = Scope::prefix("vpa--");
        kernel.settle(&wanted(), &scope).unwrap();
        vandal(&mut kernel.state);
        let wanted = Rendered::new(&wanted(), Dialect::Nft);
        let found = Drift::between(&wanted, &kernel.state, &scope);
        assert_eq!(found.is_empty(), Plan::new(&wanted, &kernel.state, &scope).is_empty());
        found.into_iter().map(|Drift { chain, what }| (chain, what)).collect()
    }

    fn rules<'a>(state: &'a mut Observed, chain: &str) -> &'a mut Vec<String> {
        Arc::make_mut(state.tables.get_mut(&Table::Filter).unwrap().get_mut(chain).unwrap())
    }

    fn one(chain: &str, what: &str) -> Vec<(String, String)> {
        vec![(chain.to_owned(), what.to_owned())]
    }

    #[test]
    fn every_kind_of_change_is_told_of() {
        assert_eq!(told(|_| {}), []);
        assert_eq!(
            told(|state| rules(state, "vpa--x").clear()),
            one(
                "vpa--x",
                "missing rules: `meta mark 0x00000001 accept`, `meta mark 0x00000002 accept` and 1 more"
            )
        );
        assert_eq!(
            told(|state| rules(state, "vpa--x").insert(0, "accept".into())),
            one("vpa--x", "foreign rule: `accept`")
        );
        assert_eq!(
            told(|state| rules(state, "vpa--x").swap(0, 1)),
            one("vpa--x", "its rules stood in another order")
        );
        assert_eq!(
            told(|state| rules(state, "vpa--x")[2] = "drop".into()),
            one("vpa--x", "missing rule: `meta mark 0x00000003 accept`; foreign rule: `drop`")
        );
        assert_eq!(
            told(|state| rules(state, "FORWARD").insert(0, "accept".into())),
            one("FORWARD", "other rules stood in front of ours")
        );
        assert_eq!(
            told(|state| rules(state, "FORWARD").clear()),
            one("FORWARD", "missing rule: `jump filter/vpa--x`")
        );
        let stray = Element::Port(7, policy::Protocol::Tcp, 80);
        let text = stray.to_string();
        assert_eq!(
            told(|state| _ = state.sets.get_mut("vpa--s").unwrap().elements.insert(stray)),
            one("vpa--s", &format!("foreign element: `{text}`"))
        );
        assert_eq!(told(|state| state.sets.clear()), one("vpa--s", "the set was gone"));
        assert_eq!(
            told(|state| _ = state.asleep.insert(Table::Filter)),
            one("inet netman", "the table was dormant: no packet came to it")
        );
    }

    proptest! {
        #[test]
        fn what_is_beyond_is_as_often_as_it_is_too_often(
            some in prop::collection::vec("[a-c]", 0..6),
            others in prop::collection::vec("[a-c]", 0..6),
        ) {
            let beyond = beyond(&some, &others);
            for letter in ["a", "b", "c"] {
                let count = |all: &[String]| all.iter().filter(|one| *one == letter).count();
                let expected = count(&some).saturating_sub(count(&others));
                prop_assert_eq!(beyond.iter().filter(|one| **one == letter).count(), expected);
            }
        }
    }
}
