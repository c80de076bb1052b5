//! Sets and maps for a kernel that has none: trees of chains.
//!
//! A rule that looks something up jumps to the root of a tree. Each node is a chain of at most sixteen
//! ways further down, by four bits of the address or the mark, and what is said of whole prefixes; each
//! leaf is a chain of the entries themselves. Packets `goto` from node to node, so the end of a leaf
//! leads back behind the rule that asked. No two rules of a node or a leaf match one packet, so a
//! changed entry costs one rule of one chain (design §3).

mod tree;

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Chains, Dialect, HookLine, Lines, Rendered, Tree, iptables, put};
use crate::{
    Action, ChainName, Family, Hook, MapBody, MapName, Rule, Ruleset, SetBody, Side, Table,
    rule::Lookup,
};
use tree::Grower;

/// The most rules of a leaf about addresses, which every packet asks.
const ADDRESS_LEAF: usize = 16;

/// `wanted` without sets and maps, in iptables' words. Trees that were there before are changed where they
/// differ.
pub(crate) fn ruleset(wanted: &Ruleset, dialect: Dialect, before: Option<&Rendered>) -> Rendered {
    let lowered = match dialect {
        Dialect::Iptables(family) => Lowering::of(wanted, family),
        _ => Lowering::of_both(wanted),
    };
    let Lowering { hooks, chains: plain, trees, .. } = lowered;
    let family_of = |table: Table| match dialect {
        Dialect::Iptables(family) => family,
        _ if table.in_ip6tables().is_some() => Family::V6,
        _ => Family::V4,
    };
    let allows = super::allows(wanted);
    let mut chains = before.map(|before| before.chains.clone()).unwrap_or_default();
    if let Some(before) = before {
        for name in before.plain.iter().filter(|name| !plain.contains_key(*name)) {
            chains.remove(name);
        }
        let gone = before.trees.iter().filter(|(name, tree)| trees.get(*name) != Some(*tree));
        for ((table, _), tree) in gone {
            Grower::of(*table, tree, family_of(*table))
                .fell(&before.allows[&tree.set], &mut chains);
        }
    }
    let names = plain.keys().cloned().collect();
    for (name, lines) in plain {
        put(&mut chains, name, lines);
    }
    for (name, tree) in &trees {
        let (table, _) = name;
        let grower = Grower::of(*table, tree, family_of(*table));
        let same = before.filter(|before| before.trees.get(name) == Some(tree));
        match same.map(|before| &before.allows[&tree.set]) {
            Some(earlier) => grower.change(earlier, &allows[&tree.set], &mut chains),
            None => grower.grow(&allows[&tree.set], &mut chains),
        }
    }
    let sets = BTreeMap::new();
    Rendered { dialect, chains, hooks, sets, allows, trees, plain: names }
}

struct Lowering<'a> {
    wanted: &'a Ruleset,
    family: Family,
    hooks: Vec<(Table, HookLine)>,
    /// All but the trees of sets that say what may be reached.
    chains: BTreeMap<(Table, String), Lines>,
    trees: BTreeMap<(Table, String), Tree>,
}

impl<'a> Lowering<'a> {
    /// What of `wanted` is about `family`.
    fn of(wanted: &'a Ruleset, family: Family) -> Self {
        let (hooks, chains, trees) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let mut lowering = Self { wanted, family, hooks, chains, trees };
        for (table, Hook { parent, place, rule }) in &wanted.hooks {
            let line = |rule| HookLine { parent: parent.to_string(), place: *place, rule };
            let lines = lowering.lines(*table, rule).into_iter();
            lowering.hooks.extend(lines.map(|rule| (*table, line(rule))));
        }
        for ((table, name), rules) in &wanted.chains {
            let lines = rules.iter().flat_map(|rule| lowering.lines(*table, rule)).collect();
            lowering.chains.insert((*table, name.to_string()), Lines::of(lines, false));
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
                self.trees.insert((table, root.to_string()), tree);
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
        match then {
            Rule { action: Action::Accept, limit: None, too_many: None, .. } => {
                (set.part(&side), Action::Accept)
            }
            then => {
                let lines = iptables::lines(then, self.family);
                let hash = digest(&lines);
                let chain = set.part(&format!("do-{hash}"));
                let lines = Lines::of(lines, false);
                self.chains.insert((table, chain.to_string()), lines);
                (set.part(&format!("{side}-{hash}")), Action::Goto(chain))
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
        self.chains.insert((table, name.to_string()), Lines::of(rules, true));
    }

    fn line(&self, rule: &Rule) -> String {
        iptables::lines(rule, self.family).pop().expect("a rule of a tree is of its family")
    }

    fn addresses(
        &mut self,
        table: Table,
        root: &ChainName,
        entries: &[(IpNet, Action)],
        side: Side,
    ) {
        let mut entries: Vec<_> =
            entries.iter().map(|(net, action)| (Key::of(*net), action)).collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        self.node(table, root, root, &entries, side);
    }

    /// The node that holds `entries`, in ascending order.
    fn node(
        &mut self,
        table: Table,
        root: &ChainName,
        name: &ChainName,
        entries: &[(Key, &Action)],
        side: Side,
    ) {
        let about = |net: IpNet, action: &Action| {
            let rule = Rule::new(action.clone());
            match side {
                Side::Source => rule.from(net),
                Side::Destination => rule.to(net),
            }
        };
        let mut rules = Vec::new();
        let split = split(entries);
        for group in
            entries.chunk_by(|(a, _), (b, _)| split > 0 && a.prefix(split) == b.prefix(split))
        {
            match group {
                group if split > 0 && group.len() > 1 => {
                    let prefix = group[0].0.prefix(split);
                    let digits = prefix.bits >> (128 - u32::from(split));
                    let width = usize::from(split) / 4;
                    let child = root.part(&format!("{digits:0width$x}"));
                    let way = about(prefix.net(self.family), &Action::Goto(child.clone()));
                    rules.push(self.line(&way));
                    self.node(table, root, &child, group, side);
                }
                group => rules.extend(
                    group
                        .iter()
                        .map(|(key, action)| self.line(&about(key.net(self.family), action))),
                ),
            }
        }
        self.leaf(table, name, rules);
    }
}

/// How many leading bits tell the children of a node apart; 0 if it is a leaf.
fn split(entries: &[(Key, &Action)]) -> u8 {
    let (Some((first, _)), Some((last, _))) = (entries.first(), entries.last()) else { return 0 };
    if entries.len() <= ADDRESS_LEAF {
        return 0;
    }
    let common = (first.bits ^ last.bits).leading_zeros();
    let common = u8::try_from(common).expect("at most 128");
    let split = common / 4 * 4 + 4;
    // A network that is larger than a child would be stays in the node; if all are, it is a leaf.
    if entries.iter().all(|(key, _)| key.length < split) { 0 } else { split }
}

/// A network as bits, from the highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    bits: u128,
    length: u8,
}

impl Key {
    fn of(net: IpNet) -> Self {
        let bits = match net.trunc() {
            IpNet::V4(net) => u128::from(net.addr().to_bits()) << 96,
            IpNet::V6(net) => net.addr().to_bits(),
        };
        Self { bits, length: net.prefix_len() }
    }

    /// The network of the first `length` bits; a larger one stays as it is.
    fn prefix(self, length: u8) -> Self {
        if self.length < length {
            return self;
        }
        Self { bits: self.bits & (u128::MAX << (128 - u32::from(length))), length }
    }

    fn net(self, family: Family) -> IpNet {
        let short = "a prefix is no longer than an address";
        match family {
            Family::V4 => {
                let bits = u32::try_from(self.bits >> 96).expect("32 bits are left");
                Ipv4Net::new(bits.into(), self.length).expect(short).into()
            }
            Family::V6 => Ipv6Net::new(self.bits.into(), self.length).expect(short).into(),
        }
    }
}

/// Eight digits that stand for what these rules say.
fn digest(lines: &[String]) -> String {
    use sha2::{Digest, Sha256};
    let hash = Sha256::digest(lines.join("\n").as_bytes());
    hash.iter().take(4).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
