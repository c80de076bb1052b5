//! Sets and maps for a kernel that has none: trees of chains.
//!
//! A rule that looks something up jumps to the root of a tree. Each node is a chain of a few ways further
//! down, by four bits of the address or two of the mark, and what is said of whole prefixes; each leaf is
//! a chain of the entries themselves, or of ways to groups of them. Packets `goto` from node to node, so
//! the end of a leaf leads back behind the rule that asked. At most one rule decides about a packet, so
//! their order says nothing, and a changed entry costs a rule or two (design §3).

mod addresses;
mod tree;

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::{Book, Dialect, HookLine, Key, Lines, Rendered, Tree, iptables};
use crate::{
    Action, ChainName, Family, Hook, MapBody, MapName, Rule, Ruleset, SetBody, Side, Table,
    clash::Clash, name::digest, rule::Lookup,
};
use tree::Grower;
pub(super) use tree::Part;

/// `wanted` without sets and maps, in iptables' words. Trees that were there before are changed where they
/// differ.
pub(crate) fn ruleset(wanted: &Ruleset, dialect: Dialect, before: Option<&Rendered>) -> Rendered {
    let lowered = match dialect {
        Dialect::Iptables(family) => Lowering::of(wanted, family),
        _ => Lowering::of_both(wanted),
    };
    let Lowering { hooks, chains: plain, trees, clash, .. } = lowered;
    let family_of = |table: Table| match dialect {
        Dialect::Iptables(family) => family,
        _ if table.in_ip6tables().is_some() => Family::V6,
        _ => Family::V4,
    };
    let allows = super::allows(wanted);
    let chains = before.map(|before| before.chains.clone()).unwrap_or_default();
    let mut book = Book { chains, clash };
    if let Some(before) = before {
        for name in before.plain.iter().filter(|name| !plain.contains_key(*name)) {
            book.chains.remove(name);
        }
        let gone = before.trees.iter().filter(|(name, tree)| trees.get(*name) != Some(*tree));
        for ((table, _), tree) in gone {
            Grower::of(*table, tree, family_of(*table)).fell(&before.allows[&tree.set], &mut book);
        }
    }
    let names = plain.keys().cloned().collect();
    for (name, lines) in plain {
        book.put(name, lines);
    }
    for (name, tree) in &trees {
        let (table, _) = name;
        let grower = Grower::of(*table, tree, family_of(*table));
        let same = before.filter(|before| before.trees.get(name) == Some(tree));
        match same.map(|before| &before.allows[&tree.set]) {
            Some(earlier) => grower.change(earlier, &allows[&tree.set], &mut book),
            None => grower.grow(&allows[&tree.set], &mut book),
        }
    }
    let (sets, Book { chains, clash }) = (BTreeMap::new(), book);
    Rendered { dialect, chains, hooks, sets, allows, trees, plain: names, clash }
}

struct Lowering<'a> {
    wanted: &'a Ruleset,
    family: Family,
    hooks: Vec<(Table, HookLine)>,
    /// All but the trees of sets that say what may be reached.
    chains: BTreeMap<Key, Lines>,
    trees: BTreeMap<Key, Tree>,
    clash: Clash,
}

impl<'a> Lowering<'a> {
    /// What of `wanted` is about `family`.
    fn of(wanted: &'a Ruleset, family: Family) -> Self {
        let (hooks, chains, trees) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let clash = wanted.clash.clone();
        let mut lowering = Self { wanted, family, hooks, chains, trees, clash };
        for (table, Hook { parent, place, rule }) in &wanted.hooks {
            let line = |rule| HookLine { parent: parent.to_string(), place: *place, rule };
            let lines = lowering.lines(*table, rule).into_iter();
            lowering.hooks.extend(lines.map(|rule| (*table, line(rule))));
        }
        for ((table, name), rules) in &wanted.chains {
            let lines = rules.iter().flat_map(|rule| lowering.lines(*table, rule)).collect();
            lowering.put(*table, name, Lines::of(lines, false));
        }
        lowering
    }

    /// The same of both families, each in its tables.
    fn of_both(wanted: &'a Ruleset) -> Self {
        let (mut both, six) = (Self::of(wanted, Family::V4), Self::of(wanted, Family::V6));
        let place = |table: Table| table.of(Family::V6);
        let hooks = six.hooks.into_iter();
        both.hooks.extend(hooks.filter_map(|(table, hook)| Some((place(table)?, hook))));
        let chains = six.chains.into_iter();
        let put = |((table, name), lines)| Some(((place(table)?, name), lines));
        both.chains.extend(chains.filter_map(put));
        let trees = six.trees.into_iter();
        both.trees.extend(trees.filter_map(|((table, name), t)| Some(((place(table)?, name), t))));
        both.clash = both.clash.or(six.clash);
        both
    }

    /// One rule, and what it looks things up in.
    fn lines(&mut self, table: Table, rule: &Rule) -> Vec<String> {
        let lowered = rule.is_of(self.family).then(|| self.lower(table, rule)).flatten();
        lowered.map(|rule| iptables::lines(&rule, self.family)).unwrap_or_default()
    }

    /// The rule itself, or the jump to the tree that stands for it.
    fn lower(&mut self, table: Table, rule: &Rule) -> Option<Rule> {
        let mut jump = rule.clone();
        let root = match (jump.lookup.take(), &rule.action) {
            (None, Action::Dispatch(map, side)) => self.doors(table, map, *side),
            (None, Action::MarkFrom(map, side)) => self.tags(table, map, *side),
            (None, _) => return Some(jump),
            (Some(lookup), action) => {
                // A limit counts what was found, so it stands behind the tree.
                let then = Rule {
                    limit: jump.limit.take(),
                    too_many: jump.too_many.take(),
                    comment: jump.comment.take(),
                    transport: jump.transport,
                    ..Rule::new(action.clone())
                };
                self.found(table, &lookup, &then)
            }
        };
        jump.action = Action::Jump(root);
        Some(jump)
    }

    /// The tree of a set, each of whose entries leads to `then`.
    fn found(&mut self, table: Table, lookup: &Lookup, then: &Rule) -> ChainName {
        let (Lookup::Address(set, _) | Lookup::Allowed(set)) = lookup;
        let (root, leaf) = self.behind(table, set, lookup, then);
        match (lookup, self.wanted.sets.get(set)) {
            (Lookup::Allowed(_), Some(SetBody::Allow(_))) => {
                let tree = Tree { root: root.clone(), set: set.clone(), action: leaf };
                let place = self.trees.entry((table, root.to_string()));
                self.clash.say(root.as_str(), place, tree);
            }
            (Lookup::Address(_, side), Some(SetBody::Nets(nets))) => {
                let nets: Vec<_> = nets.of(self.family).map(|net| (net, leaf.clone())).collect();
                self.addresses(table, &root, &nets, *side);
            }
            // What is not there, or of another kind, holds nothing.
            _ => self.leaf(table, &root, Vec::new()),
        }
        root
    }

    /// The name of the tree, and what each of its leaves does. Plain verdicts are at the leaves; what
    /// more there is to do stands in a chain of its own.
    fn behind(
        &mut self,
        table: Table,
        set: &ChainName,
        lookup: &Lookup,
        then: &Rule,
    ) -> (ChainName, Action) {
        let side = match lookup {
            Lookup::Address(_, side) => side.to_string(),
            Lookup::Allowed(_) => "ok".into(),
        };
        let is_plain = then.limit.is_none() && then.too_many.is_none();
        if is_plain && then.action == Action::Accept {
            return (set.part(&side), Action::Accept);
        }
        let lines = iptables::lines(then, self.family);
        // Eight digits stand for what it does.
        let hash = &digest(&lines.join("\n"))[..8];
        let beside = set.part(&format!("{side}-{hash}"));
        match &then.action {
            // The end of that chain leads back behind the root, as that of a leaf does.
            Action::Jump(chain) if is_plain => (beside, Action::Goto(chain.clone())),
            _ => {
                let chain = set.part(&format!("do-{hash}"));
                self.put(table, &chain, Lines::of(lines, false));
                (beside, Action::Goto(chain))
            }
        }
    }

    fn doors(&mut self, table: Table, map: &MapName, side: Side) -> ChainName {
        let root = map.part(&side.to_string());
        let doors = match self.wanted.maps.get(map) {
            Some(MapBody::Doors(doors)) => doors.iter(),
            _ => return self.nothing(table, root),
        };
        let leaf = |chain: &ChainName| Action::Goto(chain.clone());
        let entries = doors.map(|(address, chain)| (IpNet::from(*address), leaf(chain)));
        let entries: Vec<_> = entries.filter(|(net, _)| self.is_ours(net)).collect();
        self.addresses(table, &root, &entries, side);
        root
    }

    fn tags(&mut self, table: Table, map: &MapName, side: Side) -> ChainName {
        let root = map.part(&side.to_string());
        let tags = match self.wanted.maps.get(map) {
            Some(MapBody::Tags(tags)) => tags.iter(),
            _ => return self.nothing(table, root),
        };
        let entries = tags.map(|(address, tag)| (IpNet::from(*address), Action::SetMark(*tag)));
        let entries: Vec<_> = entries.filter(|(net, _)| self.is_ours(net)).collect();
        self.addresses(table, &root, &entries, side);
        root
    }

    fn nothing(&mut self, table: Table, root: ChainName) -> ChainName {
        self.leaf(table, &root, Vec::new());
        root
    }

    fn is_ours(&self, net: &IpNet) -> bool {
        Family::of(net.addr()) == self.family
    }

    fn leaf(&mut self, table: Table, name: &ChainName, rules: Vec<String>) {
        self.put(table, name, Lines::of(rules, true));
    }

    fn put(&mut self, table: Table, name: &ChainName, lines: Lines) {
        self.clash.say(name.as_str(), self.chains.entry((table, name.to_string())), lines);
    }

    fn addresses(
        &mut self,
        table: Table,
        root: &ChainName,
        entries: &[(IpNet, Action)],
        side: Side,
    ) {
        for (name, rules) in addresses::tree(root, entries, side, self.family) {
            self.leaf(table, &name, rules);
        }
    }
}

/// The one line of a rule that is about one family.
fn line(rule: &Rule, family: Family) -> String {
    iptables::lines(rule, family).pop().expect("a rule of a tree is of its family")
}
