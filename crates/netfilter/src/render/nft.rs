//! A ruleset in the words of nftables: one table `inet netman` of our own, in exactly the form
//! `nft -s list table` prints rules.
//!
//! Our three tables share it: a chain is called `filter/vpa--forward`, which also keeps names apart
//! from nft's key words. Base chains are called after the hook they stand for (`filter/FORWARD`). In
//! front of everything that comes to this host stands `operator-input`, empty and never touched: what
//! operators used to put at the head of INPUT goes there.

mod words;

use std::{collections::BTreeMap, net::IpAddr};

use imbl::{OrdSet, ordset::DiffItem};

use self::words::{address, text};
use super::{Book, Dialect, HookLine, Lines, Rendered};
use crate::{
    Action, Allow, Builtin, ChainName, Element, Family, Hook, MapBody, MapName, Place, Rule,
    Ruleset, SetBody, SetKind, SetName, Table, clash::Clash, name::digest, rule::Lookup,
    set::packed,
};

pub(crate) use self::words::spelled_out;

/// The chain that is the operators' own.
pub(crate) const OPERATORS: &str = "operator-input";

/// The table of nftables our tables are kept in.
pub(crate) fn table(table: Table) -> &'static str {
    match table {
        Table::Bridge => "bridge netman",
        _ => "inet netman",
    }
}

/// The name of a chain in it.
pub(crate) fn chain(table: Table, name: &str) -> String {
    format!("{table}/{}", word(name))
}

/// A name in characters nft takes for one; others are replaced, and a hash keeps names apart.
fn word(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.chars().all(plain) {
        return name.to_owned();
    }
    let hash = &digest(name)[..8];
    let readable: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    format!("{readable}.{hash}")
}

/// How a base chain is declared; `None` if this table has no such hook.
pub(crate) fn base(table: Table, name: &str) -> Option<String> {
    let builtin = Builtin::ALL.into_iter().find(|builtin| builtin.to_string() == name)?;
    let hook = name.to_lowercase();
    let (kind, priority) = match (table, builtin) {
        (Table::Filter, Builtin::Input | Builtin::Forward | Builtin::Output) => {
            ("filter", "filter")
        }
        (Table::Mangle, Builtin::Output) => ("route", "mangle"),
        (Table::Mangle, _) => ("filter", "mangle"),
        (Table::Nat, Builtin::Prerouting | Builtin::Output) => ("nat", "-100"),
        (Table::Nat, Builtin::Postrouting | Builtin::Input) => ("nat", "100"),
        (Table::Bridge, Builtin::Prerouting) => ("filter", "-300"),
        _ => return None,
    };
    Some(format!("type {kind} hook {hook} priority {priority}; policy accept;"))
}

/// `wanted` in nft's words. Sets that say what may be reached are changed where they differ.
pub(crate) fn ruleset(wanted: &Ruleset, before: Option<&Rendered>) -> Rendered {
    let mut nft = Nft { wanted, before, sets: BTreeMap::new(), clash: wanted.clash.clone() };
    nft.declare_sets();
    let mut chains: BTreeMap<(Table, String), Lines> = BTreeMap::new();
    for ((table, name), rules) in &wanted.chains {
        let (bridged, rules): (Vec<_>, Vec<_>) =
            rules.iter().partition(|rule| rule.bridge_port.is_some());
        let rules = rules.iter().flat_map(|rule| nft.lines(*table, rule)).collect();
        let place = chains.entry((*table, word(name.as_str())));
        nft.clash.say(name.as_str(), place, Lines::of(rules, false));
        if !bridged.is_empty() {
            let rules = bridged.iter().flat_map(|rule| nft.lines(Table::Bridge, rule)).collect();
            let place = chains.entry((Table::Bridge, word(name.as_str())));
            nft.clash.say(name.as_str(), place, Lines::of(rules, false));
        }
    }
    let mut hooks = Vec::new();
    for (table, Hook { parent, place, rule }) in &wanted.hooks {
        let line = |rule| HookLine { parent: parent.to_string(), place: *place, rule };
        if *table == Table::Filter && *parent == Builtin::Input {
            let operators = HookLine { place: Place::First, ..line(format!("jump {OPERATORS}")) };
            if !hooks.contains(&(*table, operators.clone())) {
                hooks.insert(0, (*table, operators));
            }
        }
        hooks.extend(nft.lines(*table, rule).into_iter().map(|rule| (*table, line(rule))));
        if let Action::Jump(to) = &rule.action
            && base(Table::Bridge, &parent.to_string()).is_some()
            && chains.contains_key(&(Table::Bridge, word(to.as_str())))
        {
            // Several tables may lead there from one hook.
            let lines = nft.lines(Table::Bridge, rule).into_iter();
            let new = lines.map(|rule| (Table::Bridge, line(rule)));
            let new: Vec<_> = new.filter(|hook| !hooks.contains(hook)).collect();
            hooks.extend(new);
        }
    }
    let plain = chains.keys().cloned().collect();
    let all = before.map(|before| before.chains.clone()).unwrap_or_default();
    let mut book = Book { chains: all, clash: nft.clash };
    for name in before.iter().flat_map(|before| &before.plain) {
        if !chains.contains_key(name) {
            book.chains.remove(name);
        }
    }
    for (name, lines) in chains {
        book.put(name, lines);
    }
    let (sets, allows) = (nft.sets, super::allows(wanted));
    let (dialect, trees) = (Dialect::Nft, BTreeMap::new());
    let Book { chains, clash } = book;
    Rendered { dialect, chains, hooks, sets, allows, trees, plain, clash }
}

struct Nft<'a> {
    wanted: &'a Ruleset,
    before: Option<&'a Rendered>,
    sets: BTreeMap<String, (SetKind, OrdSet<Element>)>,
    clash: Clash,
}

/// The name of the part of a set that is about `family`.
fn of_family(name: &str, family: Family) -> String {
    match family {
        Family::V4 => word(name),
        Family::V6 => format!("{}-6", word(name)),
    }
}

fn ranges_of(name: &SetName) -> String {
    format!("{}-r", word(name.as_str()))
}

impl Nft<'_> {
    /// Sets are there whether a rule asks them or not; maps to chains are made for the table that asks.
    fn declare_sets(&mut self) {
        for (name, body) in &self.wanted.sets {
            match body {
                SetBody::Allow(allow) => self.allow(name, allow),
                SetBody::Nets(nets) => self.insert(name.as_str(), SetKind::Nets, |family| {
                    nets.of(family).map(Element::Net).collect()
                }),
                SetBody::Meter { expire } => {
                    for family in Family::ALL {
                        let kind = SetKind::Meter(family, expire.get());
                        let name = of_family(name.as_str(), family);
                        self.say(name, kind, OrdSet::new());
                    }
                }
            }
        }
        for (name, body) in &self.wanted.maps {
            if let MapBody::Tags(tags) = body {
                self.insert(name.as_str(), SetKind::Tags, |family| {
                    let ours = tags.iter().filter(|(address, _)| Family::of(**address) == family);
                    ours.map(|(address, mark)| Element::Tag(*address, *mark)).collect()
                });
            }
        }
    }

    /// Single ports are kept apart from ranges.
    fn allow(&mut self, name: &SetName, allow: &Allow) {
        let earlier = self.before.and_then(|before| before.allows.get(name));
        let [exact, ranges] = [word(name.as_str()), ranges_of(name)];
        let before = earlier.map(|allow| &allow.exact).zip(self.elements_before(&exact));
        let elements = elements_of(before, &allow.exact, |&(mark, protocol, port)| {
            Element::Port(mark.into(), protocol, port)
        });
        self.say(exact, SetKind::Allowed, elements);
        if allow.ranges.is_empty() {
            return;
        }
        let before = earlier.map(|allow| &allow.ranges).zip(self.elements_before(&ranges));
        let elements = elements_of(before, &allow.ranges, |&(mark, protocol, ports)| {
            Element::Ports(mark.into(), protocol, ports)
        });
        self.say(ranges, SetKind::AllowedRanges, elements);
    }

    fn say(&mut self, set: String, kind: SetKind, elements: OrdSet<Element>) {
        self.clash.say(&set.clone(), self.sets.entry(set), (kind, elements));
    }

    fn elements_before(&self, set: &str) -> Option<&OrdSet<Element>> {
        self.before?.sets.get(set).map(|(_, elements)| elements)
    }

    /// The part for IPv4 always, that for IPv6 if it holds anything.
    fn insert(
        &mut self,
        name: &str,
        kind: impl Fn(Family) -> SetKind,
        elements: impl Fn(Family) -> OrdSet<Element>,
    ) {
        for family in Family::ALL {
            let elements = elements(family);
            if family == Family::V4 || !elements.is_empty() {
                self.say(of_family(name, family), kind(family), elements);
            }
        }
    }

    /// The map to chains of `table`.
    fn doors(&mut self, table: Table, map: &MapName) -> String {
        let name = chain(table, map.as_str());
        if let Some(MapBody::Doors(doors)) = self.wanted.maps.get(map)
            && !self.sets.contains_key(&name)
        {
            let of = |family| {
                let ours = doors.iter().filter(move |(address, _)| Family::of(**address) == family);
                let door = |(address, to): (&IpAddr, &ChainName)| {
                    Element::Door(*address, chain(table, to.as_str()))
                };
                ours.map(door).collect::<OrdSet<_>>()
            };
            for family in Family::ALL {
                let elements = of(family);
                if family == Family::V4 || !elements.is_empty() {
                    let name =
                        if family == Family::V4 { name.clone() } else { format!("{name}-6") };
                    self.say(name, SetKind::Doors(family), elements);
                }
            }
        }
        name
    }

    /// The rules that say what `rule` says: one for each family it looks something up for.
    fn lines(&mut self, table: Table, rule: &Rule) -> Vec<String> {
        let families: Vec<_> = Family::ALL.into_iter().filter(|f| rule.is_of(*f)).collect();
        match (&rule.lookup, &rule.action, &rule.too_many) {
            (Some(Lookup::Allowed(set)), ..) => {
                let ranges = ranges_of(set);
                let names = [word(set.as_str())].into_iter();
                let names = names.chain(self.sets.contains_key(&ranges).then_some(ranges));
                let ask = |name| format!("meta mark . meta l4proto . th dport @{name}");
                names.map(|name| text(table, rule, families[0], Some(ask(name)), None)).collect()
            }
            (Some(Lookup::Address(set, side)), ..) => {
                let mut lines = Vec::new();
                for family in families {
                    let name = of_family(set.as_str(), family);
                    if self.sets.contains_key(&name) {
                        let ask = format!("{} . meta l4proto @{name}", address(family, *side));
                        lines.push(text(table, rule, family, Some(ask), None));
                    }
                }
                lines
            }
            (None, Action::Dispatch(map, side), _) => {
                let doors = self.doors(table, map);
                self.asked(table, rule, &families, &doors, |family, name| {
                    format!("{} vmap @{name}", address(family, *side))
                })
            }
            (None, Action::MarkFrom(map, side), _) => {
                let tags = word(map.as_str());
                self.asked(table, rule, &families, &tags, |family, name| {
                    format!("meta mark set {} map @{name}", address(family, *side))
                })
            }
            (None, _, Some(_)) => {
                families.into_iter().map(|family| text(table, rule, family, None, None)).collect()
            }
            (None, _, None) => {
                families.first().map(|f| text(table, rule, *f, None, None)).into_iter().collect()
            }
        }
    }

    /// A rule for each family that a map has addresses of.
    fn asked(
        &self,
        table: Table,
        rule: &Rule,
        families: &[Family],
        map: &str,
        ask: impl Fn(Family, &str) -> String,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        for family in families {
            let name = if *family == Family::V4 { map.to_owned() } else { format!("{map}-6") };
            if self.sets.contains_key(&name) {
                lines.push(text(table, rule, *family, None, Some(ask(*family, &name))));
            }
        }
        lines
    }
}

/// The elements of `entries`, made from those there were before if there were any.
fn elements_of<T: Ord + Clone>(
    before: Option<(&OrdSet<T>, &OrdSet<Element>)>,
    entries: &OrdSet<T>,
    element: impl Fn(&T) -> Element,
) -> OrdSet<Element> {
    let Some((earlier, elements)) = before else { return packed(entries.iter().map(element)) };
    let mut elements = elements.clone();
    for difference in earlier.diff(entries) {
        match difference {
            DiffItem::Add(new) => drop(elements.insert(element(new))),
            DiffItem::Remove(gone) => drop(elements.remove(&element(gone))),
        }
    }
    elements
}
