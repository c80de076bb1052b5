use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use imbl::{OrdSet, ordmap::DiffItem};
use thiserror::Error;

use crate::{Builtin, Element, Family, Rendered, SetKind, SetStep, Step, Table};

/// What the kernel holds: every chain of our tables, ours and others', each rule in the kernel's own
/// words, for iptables those of `iptables-save` without `-A <chain>`; and with nftables the sets. Copies
/// share what they have in common, and so do what is wanted and what is there, once it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    pub(crate) tables: BTreeMap<Table, BTreeMap<String, Arc<Vec<String>>>>,
    pub(crate) sets: BTreeMap<String, ObservedSet>,
    /// Tables of nftables that somebody has made dormant: no packet comes to what they hold.
    pub(crate) asleep: BTreeSet<Table>,
}

/// A set as the kernel holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ObservedSet {
    /// `None` if it is of no kind of ours.
    pub kind: Option<SetKind>,
    pub elements: OrdSet<Element>,
}

/// A line of a ruleset listing that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line} of the ruleset listing is unreadable: {text:?}")]
pub struct UnreadableRuleset {
    /// Its number, from 1.
    pub line: usize,
    /// The line.
    pub text: String,
}

impl ObservedSet {
    /// What is there under the key of `element`, with another value.
    fn of_same_key(&self, element: &Element) -> Option<&Element> {
        let (first, last) = match element {
            Element::Tag(address, _) => {
                (Element::Tag(*address, 0), Element::Tag(*address, u32::MAX))
            }
            Element::Door(address, _) => {
                let next = Element::Door(*address, char::MAX.to_string());
                (Element::Door(*address, String::new()), next)
            }
            _ => return None,
        };
        self.elements.range(first..=last).find(|there| *there != element)
    }
}

impl Observed {
    /// Reads the output of `iptables-save`. Tables we never write to are skipped.
    pub fn parse(listing: &str) -> Result<Self, UnreadableRuleset> {
        let mut observed = Self::default();
        observed.read(listing, Family::V4)?;
        Ok(observed)
    }

    /// Reads the output of `ip6tables-save` as well.
    pub(crate) fn and_ipv6(mut self, listing: &str) -> Result<Self, UnreadableRuleset> {
        self.read(listing, Family::V6)?;
        Ok(self)
    }

    fn read(&mut self, listing: &str, family: Family) -> Result<(), UnreadableRuleset> {
        let mut table = None;
        for (index, text) in listing.lines().enumerate() {
            let unreadable = || UnreadableRuleset { line: index + 1, text: text.to_owned() };
            let text = text.trim_end();
            match text.as_bytes().first() {
                None | Some(b'#') => {}
                Some(b'*') => {
                    let named = Table::ALL.into_iter().find(|t| text[1..] == t.to_string());
                    table = named.and_then(|table| table.of(family));
                }
                Some(b':') => {
                    let name = text[1..].split(' ').next().filter(|name| !name.is_empty());
                    let name = name.ok_or_else(unreadable)?;
                    self.chain(table, name);
                }
                Some(b'-') => {
                    let appended = text.strip_prefix("-A ").ok_or_else(unreadable)?;
                    let (name, rule) = appended.split_once(' ').unwrap_or((appended, ""));
                    if let Some(rules) = self.chain(table, name) {
                        rules.push(rule.to_owned());
                    }
                }
                Some(_) if text == "COMMIT" => table = None,
                Some(_) => return Err(unreadable()),
            }
        }
        Ok(())
    }

    /// The rules of a chain, if the chain is there.
    pub fn rules(&self, table: Table, chain: &str) -> Option<&[String]> {
        self.tables.get(&table)?.get(chain).map(|rules| rules.as_slice())
    }

    /// The same, for whoever plays somebody who meddles with them.
    pub fn rules_mut(&mut self, table: Table, chain: &str) -> Option<&mut Vec<String>> {
        self.tables.get_mut(&table)?.get_mut(chain).map(Arc::make_mut)
    }

    /// The names of all chains of a table.
    pub fn chains(&self, table: Table) -> impl Iterator<Item = &str> {
        self.tables.get(&table).into_iter().flat_map(|chains| chains.keys().map(String::as_str))
    }

    /// The names of all sets and maps.
    pub fn sets(&self) -> impl Iterator<Item = &str> {
        self.sets.keys().map(String::as_str)
    }

    /// What a set or map holds, if it is there.
    pub fn elements(&self, set: &str) -> Option<&OrdSet<Element>> {
        self.sets.get(set).map(|set| &set.elements)
    }

    /// Does to the copy what a kernel does with one line of a transaction, or says why no kernel would.
    pub(crate) fn apply(&mut self, table: Table, step: &Step) -> Result<(), String> {
        let chains = self.tables.entry(table).or_default();
        match step {
            Step::Declare(chain) => {
                chains.insert(chain.clone(), Arc::default());
            }
            Step::Delete(chain, rule) => {
                let rules = Arc::make_mut(chains.entry(chain.clone()).or_default());
                let position = rules.iter().position(|there| there == rule);
                rules.remove(position.ok_or_else(|| format!("no rule {rule:?} in {chain}"))?);
            }
            Step::Prepend(chain, rule) | Step::Append(chain, rule) => {
                // The kernel's own chains are there once anybody uses the table.
                if Builtin::ALL.iter().any(|builtin| builtin.to_string() == *chain) {
                    chains.entry(chain.clone()).or_default();
                }
                let rules = chains.get_mut(chain).ok_or_else(|| format!("no chain {chain}"))?;
                let rules = Arc::make_mut(rules);
                let front = matches!(step, Step::Prepend(..));
                rules.insert(if front { 0 } else { rules.len() }, rule.clone());
            }
            Step::Remove(chain) => match chains.remove(chain) {
                Some(rules) if rules.is_empty() => {}
                _ => return Err(format!("{chain} is not there, or not empty")),
            },
        }
        Ok(())
    }

    /// The same for a line about a set.
    pub(crate) fn apply_to_set(&mut self, step: &SetStep) -> Result<(), String> {
        let missing = |name: &String| format!("no set {name}");
        match step {
            SetStep::Create(name, kind) => {
                let set = ObservedSet { kind: Some(*kind), elements: OrdSet::new() };
                if self.sets.insert(name.clone(), set).is_some() {
                    return Err(format!("set {name} is there already"));
                }
            }
            SetStep::Replace(name, kind) => {
                let set = ObservedSet { kind: Some(*kind), elements: OrdSet::new() };
                self.sets.insert(name.clone(), set).ok_or_else(|| missing(name))?;
            }
            SetStep::Flush(name, _) => {
                self.sets.get_mut(name).ok_or_else(|| missing(name))?.elements.clear();
            }
            SetStep::Add(name, elements) => {
                let set = self.sets.get_mut(name).ok_or_else(|| missing(name))?;
                for element in elements {
                    if let Some(there) = set.of_same_key(element) {
                        return Err(format!("{there} is in {name}, so {element} cannot be"));
                    }
                    set.elements.insert(element.clone());
                }
            }
            SetStep::Delete(name, elements) => {
                let set = self.sets.get_mut(name).ok_or_else(|| missing(name))?;
                for element in elements {
                    if set.elements.remove(element).is_none() {
                        return Err(format!("no element {element} in {name}"));
                    }
                }
            }
            SetStep::Drop(name) => {
                self.sets.remove(name).ok_or_else(|| missing(name))?;
            }
        }
        Ok(())
    }

    /// Keeps what is here and in `wanted` only once. Of chains, those that are not in `before` as well
    /// are looked at.
    pub(crate) fn share(&mut self, wanted: &Rendered, before: Option<&Rendered>) {
        let mut share = |(table, name): &(Table, String), rules: &Arc<Vec<String>>| {
            let there = self.tables.get_mut(table).and_then(|chains| chains.get_mut(name));
            if let Some(there) = there.filter(|there| *there == rules) {
                *there = rules.clone();
            }
        };
        match before {
            None => wanted.chains.iter().for_each(|(name, lines)| share(name, &lines.rules)),
            Some(before) => before.chains.diff(&wanted.chains).for_each(|change| match change {
                DiffItem::Add(name, lines) | DiffItem::Update { new: (name, lines), .. } => {
                    share(name, &lines.rules);
                }
                DiffItem::Remove(..) => {}
            }),
        }
        for (name, (_, elements)) in &wanted.sets {
            if let Some(there) = self.sets.get_mut(name).filter(|set| set.elements == *elements) {
                there.elements = elements.clone();
            }
        }
    }

    /// Whether any rule leads to this chain; another table may have one of the same name.
    pub(crate) fn is_led_to(&self, table: Table, chain: &str) -> bool {
        let mut rules = self.tables.get(&table).into_iter().flat_map(BTreeMap::values);
        rules.any(|rules| rules.iter().any(|rule| target(rule) == Some(chain)))
    }

    /// Whether any rule asks this set.
    pub(crate) fn is_asked(&self, set: &str) -> bool {
        let asks = format!("@{set} ");
        self.all_rules().any(|rule| format!("{rule} ").contains(&asks))
    }

    fn all_rules(&self) -> impl Iterator<Item = &String> {
        self.tables.values().flat_map(BTreeMap::values).flat_map(|rules| rules.iter())
    }

    fn chain(&mut self, table: Option<Table>, name: &str) -> Option<&mut Vec<String>> {
        let chain = self.tables.entry(table?).or_default().entry(name.to_owned()).or_default();
        Some(Arc::make_mut(chain))
    }
}

/// The chain a rule jumps or goes to, in iptables' words or nft's, or iptables' own target.
pub(crate) fn target(rule: &str) -> Option<&str> {
    // What is quoted may hold anything, and the jump may stand on either side of it.
    let unquoted = rule.split('"').step_by(2);
    unquoted.into_iter().find_map(|part| {
        let mut words = part.split(' ');
        words.by_ref().find(|word| matches!(*word, "-j" | "-g" | "jump" | "goto"))?;
        let to = words.next()?;
        // nft's chains carry the name of their table.
        Some(to.split_once('/').map_or(to, |(_, name)| name))
    })
}

/// The sets a rule asks, in nft's words.
pub(crate) fn asked(rule: &str) -> impl Iterator<Item = &str> {
    let unquoted = rule.split('"').step_by(2);
    unquoted.flat_map(|part| part.split(' ').filter_map(|word| word.strip_prefix('@')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LISTING: &str = "\
# Generated by iptables-save v1.8.9
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [12:720]
:vpa--forward - [0:0]
-A FORWARD -j vpa--forward
-A vpa--forward -m comment --comment \"-j ACCEPT\" -j DROP
COMMIT
*security
:INPUT ACCEPT [0:0]
-A INPUT -j DROP
COMMIT
";

    #[test]
    fn a_listing_is_read_chain_by_chain() {
        let observed = Observed::parse(LISTING).unwrap();
        assert_eq!(observed.rules(Table::Filter, "FORWARD").unwrap(), ["-j vpa--forward"]);
        assert_eq!(observed.rules(Table::Filter, "INPUT").unwrap(), [""; 0]);
        assert_eq!(observed.rules(Table::Nat, "PREROUTING"), None);
        assert_eq!(observed.chains(Table::Filter).count(), 3);
    }

    #[test]
    fn the_target_is_not_looked_for_in_comments() {
        assert_eq!(target("-m comment --comment \"-j ACCEPT\" -j DROP"), Some("DROP"));
        assert_eq!(target("-d 10.0.0.1/32 -g vpa--x"), Some("vpa--x"));
        assert_eq!(target("-j LOG --log-prefix \"DENY_x \""), Some("LOG"));
        assert_eq!(target("-s 10.0.0.1/32"), None);
        assert_eq!(
            target("ip saddr 10.0.0.1 jump filter/vpa--x comment \"jump y\""),
            Some("vpa--x")
        );
    }

    #[test]
    fn other_texts_are_refused_with_their_line() {
        let error = Observed::parse("*filter\nrubbish").unwrap_err();
        assert_eq!(error.to_string(), "line 2 of the ruleset listing is unreadable: \"rubbish\"");
    }

    proptest! {
        #[test]
        fn any_listing_is_read_or_refused(text in "(\\*filter\n)?([-:*#A ]?.*\n)*") {
            let _ = Observed::parse(&text);
        }

        #[test]
        fn any_rule_has_a_target_or_none(text in ".*") {
            let _ = target(&text);
        }
    }
}
