//! A ruleset in the words of one kernel: pure functions from the vocabulary to text.
//!
//! Each line is rendered in exactly the form the kernel's own listing has, so that wanted and observed
//! are compared as text and any tampering shows.

pub(crate) mod iptables;
mod lower;
pub(crate) mod nft;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use imbl::{OrdMap, OrdSet};

use crate::{
    Action, Allow, ChainName, Element, Family, Place, Ruleset, SetBody, SetKind, SetName, Table,
    clash::Clash,
};
use lower::Part;

/// Copies share the chains they have in common.
type Chains = OrdMap<Key, Arc<Lines>>;

/// What a chain is known by: its table and its name.
type Key = (Table, String);

/// The words a kernel is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// iptables, which has no sets of ours: they become trees of chains.
    Iptables(Family),
    /// The same for both families, each in tables of its own ([`Table::Filter6`]): iptables and ip6tables.
    DualIptables,
    /// nftables, one table of our own for both families.
    Nft,
}

/// A ruleset in the words of one kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    pub(crate) dialect: Dialect,
    pub(crate) chains: Chains,
    pub(crate) hooks: Vec<(Table, HookLine)>,
    pub(crate) sets: BTreeMap<String, (SetKind, OrdSet<Element>)>,
    /// What the sets of this kind were made of, to make the next ones from.
    pub(crate) allows: BTreeMap<SetName, Allow>,
    /// The trees among the chains that sets of this kind were made into, by their roots.
    pub(crate) trees: BTreeMap<Key, Tree>,
    /// The other chains.
    pub(crate) plain: BTreeSet<Key>,
    pub(crate) clash: Clash,
}

/// A tree of chains: of which set, and what each of its leaves does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    pub root: ChainName,
    pub set: SetName,
    pub action: Action,
}

/// The rules of a chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    pub rules: Arc<Vec<String>>,
    /// Whether at most one of them decides about any packet, so that their order says nothing.
    pub unordered: bool,
    /// What part of which tree it is, if it is one of a set that says what may be reached.
    pub part: Option<(ChainName, Part)>,
}

/// The chains of a ruleset while they are written down.
struct Book {
    chains: Chains,
    clash: Clash,
}

/// A rule in a chain that everybody shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HookLine {
    pub parent: String,
    pub place: Place,
    pub rule: String,
}

impl Dialect {
    /// The tables in which something is said of `table`: of each family one, if they are kept apart.
    pub fn tables(self, table: Table) -> Vec<Table> {
        match self {
            Self::Iptables(_) | Self::Nft => vec![table],
            Self::DualIptables => Family::ALL.into_iter().filter_map(|f| table.of(f)).collect(),
        }
    }
}

impl Rendered {
    /// `wanted` in the words of `dialect`.
    pub fn new(wanted: &Ruleset, dialect: Dialect) -> Self {
        Self::beside(wanted, dialect, None)
    }

    /// `wanted` in the same words; of sets that say what may be reached, what they have in common with
    /// those here is not written again.
    #[must_use]
    pub fn then(&self, wanted: &Ruleset) -> Self {
        // Where there is a clash, what is here is not what was meant; and one that there would be then may be
        // with a name that is about to go.
        let beside = self.clash.is_none().then(|| Self::beside(wanted, self.dialect, Some(self)));
        let then = beside.filter(|then| then.clash.is_none());
        then.unwrap_or_else(|| Self::new(wanted, self.dialect))
    }

    /// Nothing at all.
    pub(crate) fn nothing(dialect: Dialect) -> Self {
        Self::new(&Ruleset::new(), dialect)
    }

    fn beside(wanted: &Ruleset, dialect: Dialect, before: Option<&Self>) -> Self {
        match dialect {
            Dialect::Iptables(_) | Dialect::DualIptables => lower::ruleset(wanted, dialect, before),
            Dialect::Nft => nft::ruleset(wanted, before),
        }
    }

    /// How many rules there are, hooks included.
    pub fn rules(&self) -> usize {
        self.chains.values().map(|lines| lines.rules.len()).sum::<usize>() + self.hooks.len()
    }

    /// How many elements the sets and maps have.
    pub fn elements(&self) -> usize {
        self.sets.values().map(|(_, elements)| elements.len()).sum()
    }
}

impl Lines {
    /// These rules, which are kept for long and may be many.
    fn of(mut rules: Vec<String>, unordered: bool) -> Self {
        rules.iter_mut().for_each(String::shrink_to_fit);
        rules.shrink_to_fit();
        Self { rules: Arc::new(rules), unordered, part: None }
    }
}

impl Book {
    /// Puts a chain in place, unless it is there: as what it was before, it may only be changed.
    fn put(&mut self, key: Key, lines: Lines) {
        match self.chains.get(&key) {
            Some(there) if **there == lines => {}
            Some(there) if there.part != lines.part => self.clash.note(&key.1),
            _ => drop(self.chains.insert(key, Arc::new(lines))),
        }
    }
}

/// The sets that say what may be reached.
fn allows(wanted: &Ruleset) -> BTreeMap<SetName, Allow> {
    let allow = |(name, body): (&SetName, &SetBody)| match body {
        SetBody::Allow(allow) => Some((name.clone(), allow.clone())),
        SetBody::Nets(_) | SetBody::Meter { .. } => None,
    };
    wanted.sets.iter().filter_map(allow).collect()
}

#[cfg(test)]
mod tests;
