use std::{collections::BTreeMap, fmt};

use crate::{ChainName, Family, MapBody, MapName, Rule, SetBody, SetName, clash::Clash};

/// A table of the firewall. Ordered as transactions are committed: what denies comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Who may pass.
    Filter,
    /// What a packet is labelled.
    Mangle,
    /// Which addresses it carries.
    Nat,
    /// What passes between the ports of a bridge. Nobody asks for it: with nftables, rules about such
    /// ports land here; with iptables they stay where they are.
    Bridge,
    /// Who may pass over IPv6. Nobody asks for it: where both families are written with iptables, what is
    /// said of the filter lands here as well, as far as it is about IPv6.
    Filter6,
    /// What a packet of IPv6 is labelled, likewise.
    Mangle6,
}

/// A chain the kernel itself calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Builtin {
    /// To this host.
    Input,
    /// Through this host.
    Forward,
    /// Out of this host.
    Output,
    /// Before routing.
    Prerouting,
    /// After routing.
    Postrouting,
}

/// A chain that several writers share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parent {
    /// Everybody does.
    Builtin(Builtin),
    /// Another program of ours made it. Where it is not there, nothing can be hooked into it: the
    /// transaction fails.
    Chain(ChainName),
}

/// A rule of ours in a chain that others write to as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The shared chain.
    pub parent: Parent,
    /// Where in it.
    pub place: Place,
    /// The rule: a jump to a chain of ours, or one whose comment says that it is ours.
    pub rule: Rule,
}

/// Where in a shared chain a rule of ours stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Before everything else: put back there when something else is found in front.
    First,
    /// Anywhere; appended when missing, so that operators' rules keep their precedence.
    Last,
}

/// What the kernel should hold: chains with their rules, and the hooks that lead into them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    pub(crate) chains: BTreeMap<(Table, ChainName), Vec<Rule>>,
    pub(crate) hooks: Vec<(Table, Hook)>,
    pub(crate) sets: BTreeMap<SetName, SetBody>,
    pub(crate) maps: BTreeMap<MapName, MapBody>,
    pub(crate) clash: Clash,
}

/// What is wanted under a name is said once, or always alike: no kernel takes two things under one name
/// ([`crate::KernelError::Clash`]).
impl Ruleset {
    /// Nothing at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wants `chain` to hold exactly `rules`.
    pub fn chain(&mut self, table: Table, chain: ChainName, rules: Vec<Rule>) {
        let name = chain.clone();
        self.clash.say(name.as_str(), self.chains.entry((table, chain)), rules);
    }

    /// Wants `chain` to hold these rules instead of those that were wanted until now.
    pub fn replace_chain(&mut self, table: Table, chain: ChainName, rules: Vec<Rule>) {
        self.chains.insert((table, chain), rules);
    }

    /// Wants a rule in a shared chain.
    pub fn hook(&mut self, table: Table, parent: impl Into<Parent>, place: Place, rule: Rule) {
        let parent = parent.into();
        self.hooks.push((table, Hook { parent, place, rule }));
    }

    /// Wants a set, for rules of any table to look things up in.
    pub fn set(&mut self, name: SetName, body: SetBody) {
        self.clash.say(name.clone().as_str(), self.sets.entry(name), body);
    }

    /// Wants a map, for rules of any table to look addresses up in.
    pub fn map(&mut self, name: MapName, body: MapBody) {
        self.clash.say(name.clone().as_str(), self.maps.entry(name), body);
    }

    /// How many rules there are, hooks included.
    pub fn len(&self) -> usize {
        self.chains.values().map(Vec::len).sum::<usize>() + self.hooks.len()
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty()
            && self.hooks.is_empty()
            && self.sets.is_empty()
            && self.maps.is_empty()
    }
}

/// What an operator reads: each table's hooks, then its chains, in `iptables-save`'s notation; then
/// the sets and maps, one entry a line.
impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in Table::ALL {
            let hooks: Vec<_> = self.hooks.iter().filter(|(t, _)| *t == table).collect();
            let chains: Vec<_> = self.chains.iter().filter(|((t, _), _)| *t == table).collect();
            if hooks.is_empty() && chains.is_empty() {
                continue;
            }
            writeln!(f, "*{table}")?;
            for (_, Hook { parent, place: _, rule }) in hooks {
                writeln!(f, "-A {parent} {rule}")?;
            }
            for ((_, chain), rules) in chains {
                writeln!(f, ":{chain}")?;
                rules.iter().try_for_each(|rule| writeln!(f, "-A {chain} {rule}"))?;
            }
        }
        self.sets.iter().try_for_each(|(name, body)| write_set(f, name, body))?;
        self.maps.iter().try_for_each(|(name, body)| write_map(f, name, body))
    }
}

fn write_set(f: &mut fmt::Formatter<'_>, name: &SetName, body: &SetBody) -> fmt::Result {
    writeln!(f, "set {name}")?;
    match body {
        SetBody::Allow(allow) => {
            let mut entries = allow.entries().into_iter();
            entries.try_for_each(|(mark, protocol, ports)| {
                writeln!(f, "  mark {mark:#x} {protocol} {ports}")
            })
        }
        SetBody::Nets(nets) => nets.0.iter().try_for_each(|net| writeln!(f, "  {net}")),
        SetBody::Meter { expire } => writeln!(f, "  forgets after {expire} s"),
    }
}

fn write_map(f: &mut fmt::Formatter<'_>, name: &MapName, body: &MapBody) -> fmt::Result {
    writeln!(f, "map {name}")?;
    match body {
        MapBody::Tags(tags) => {
            tags.iter().try_for_each(|(address, mark)| writeln!(f, "  {address} mark {mark:#x}"))
        }
        MapBody::Doors(doors) => {
            doors.iter().try_for_each(|(address, chain)| writeln!(f, "  {address} chain {chain}"))
        }
    }
}

impl Table {
    /// All tables, in the order they are committed.
    pub const ALL: [Self; 6] =
        [Self::Filter, Self::Mangle, Self::Nat, Self::Bridge, Self::Filter6, Self::Mangle6];

    /// Where what is said of this table about `family` stands, if both are written with iptables. Nothing
    /// of ours translates addresses of IPv6, and a kernel need not know how.
    pub(crate) fn of(self, family: Family) -> Option<Self> {
        match (family, self) {
            (Family::V4, table) => Some(table),
            (Family::V6, Self::Filter) => Some(Self::Filter6),
            (Family::V6, Self::Mangle) => Some(Self::Mangle6),
            (Family::V6, _) => None,
        }
    }

    /// The table of `ip6tables` it is, if it is one.
    pub(crate) fn in_ip6tables(self) -> Option<Self> {
        let like = [Self::Filter, Self::Mangle].into_iter();
        like.into_iter().find(|table| table.of(Family::V6) == Some(self))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Filter => "filter",
            Self::Mangle => "mangle",
            Self::Nat => "nat",
            Self::Bridge => "bridge",
            Self::Filter6 => "filter6",
            Self::Mangle6 => "mangle6",
        })
    }
}

impl Builtin {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Input, Self::Forward, Self::Output, Self::Prerouting, Self::Postrouting];
}

impl fmt::Display for Builtin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "INPUT",
            Self::Forward => "FORWARD",
            Self::Output => "OUTPUT",
            Self::Prerouting => "PREROUTING",
            Self::Postrouting => "POSTROUTING",
        })
    }
}

impl PartialEq<Builtin> for Parent {
    fn eq(&self, other: &Builtin) -> bool {
        matches!(self, Self::Builtin(chain) if chain == other)
    }
}

impl From<Builtin> for Parent {
    fn from(chain: Builtin) -> Self {
        Self::Builtin(chain)
    }
}

impl From<ChainName> for Parent {
    fn from(chain: ChainName) -> Self {
        Self::Chain(chain)
    }
}

impl fmt::Display for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(chain) => chain.fmt(f),
            Self::Chain(chain) => chain.fmt(f),
        }
    }
}
