//! A ruleset in the words of one kernel: pure functions from the vocabulary to text.
//!
//! Each line is rendered in exactly the form the kernel's own listing has, so that wanted and observed
//! are compared as text and any tampering shows.

pub(crate) mod iptables;
mod lower;
pub(crate) mod nft;

use std::collections::{BTreeMap, BTreeSet};

use crate::{Element, Family, Place, Ruleset, SetKind, Table};

/// The words a kernel is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// iptables, which has no sets of ours: they become trees of chains.
    Iptables(Family),
    /// nftables, one table of our own for both families.
    Nft,
}

/// A ruleset in the words of one kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    pub(crate) dialect: Dialect,
    pub(crate) chains: BTreeMap<(Table, String), Lines>,
    pub(crate) hooks: Vec<(Table, HookLine)>,
    pub(crate) sets: BTreeMap<String, (SetKind, BTreeSet<Element>)>,
}

/// The rules of a chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    pub rules: Vec<String>,
    /// Whether no two of them can match one packet, so that their order says nothing.
    pub unordered: bool,
}

/// A rule in a chain that everybody shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HookLine {
    pub parent: String,
    pub place: Place,
    pub rule: String,
}

impl Rendered {
    /// `wanted` in the words of `dialect`.
    pub fn new(wanted: &Ruleset, dialect: Dialect) -> Self {
        match dialect {
            Dialect::Iptables(family) => lower::ruleset(wanted, family),
            Dialect::Nft => nft::ruleset(wanted),
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

#[cfg(test)]
mod tests;
