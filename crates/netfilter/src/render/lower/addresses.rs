//! The tree of a set or map of addresses: nodes by four bits, those that all have in common skipped, as deep
//! as there are too many entries for one leaf.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::line;
use crate::{Action, ChainName, Family, Rule, Side};

/// The most rules of a leaf, which every packet asks.
const LEAF: usize = 16;

/// The chains of a tree under `root` that does with packets from or to each network what is said of it.
pub(super) fn tree(
    root: &ChainName,
    entries: &[(IpNet, Action)],
    side: Side,
    family: Family,
) -> Vec<(ChainName, Vec<String>)> {
    let mut entries: Vec<_> = entries.iter().map(|(net, action)| (Key::of(*net), action)).collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    let mut tree = Tree { root, side, family, chains: Vec::new() };
    tree.grow(root.clone(), &entries);
    tree.chains
}

struct Tree<'a> {
    root: &'a ChainName,
    side: Side,
    family: Family,
    chains: Vec<(ChainName, Vec<String>)>,
}

impl Tree<'_> {
    /// The node that holds `entries`, in ascending order, and all below it.
    fn grow(&mut self, name: ChainName, entries: &[(Key, &Action)]) {
        let mut rules = Vec::new();
        let split = split(entries);
        for group in
            entries.chunk_by(|(a, _), (b, _)| split > 0 && a.prefix(split) == b.prefix(split))
        {
            match group {
                [(key, _), _, ..] if split > 0 => {
                    let prefix = key.prefix(split);
                    let child = self.root.node(&prefix.digits());
                    rules.push(self.rule(prefix, &Action::Goto(child.clone())));
                    self.grow(child, group);
                }
                group => rules.extend(group.iter().map(|(key, action)| self.rule(*key, action))),
            }
        }
        self.chains.push((name, rules));
    }

    fn rule(&self, key: Key, action: &Action) -> String {
        let (rule, net) = (Rule::new(action.clone()), key.net(self.family));
        let rule = match self.side {
            Side::Source => rule.from(net),
            Side::Destination => rule.to(net),
        };
        line(&rule, self.family)
    }
}

/// How many leading bits tell the children of a node apart; 0 if it is a leaf.
fn split(entries: &[(Key, &Action)]) -> u8 {
    let (Some((first, _)), Some((last, _))) = (entries.first(), entries.last()) else { return 0 };
    if entries.len() <= LEAF {
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

    /// The bits of a prefix, which ends with a digit, in hexadecimal digits.
    fn digits(self) -> String {
        let (digits, width) =
            (self.bits >> (128 - u32::from(self.length)), usize::from(self.length) / 4);
        format!("{digits:0width$x}")
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
