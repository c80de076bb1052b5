//! What a leaf holds.

use std::collections::BTreeMap;

use policy::{PortRange, Protocol};

use super::{Node, Part};
use crate::Allow;

/// The most entries of a leaf. A packet passes by half of them on average, at some 10 ns each, and only the
/// first of a connection does.
const LEAF: usize = 128;

/// The fewest marks that are a crowd.
const CROWD: usize = 8;

/// What the entries of a crowd have in common.
pub(super) type Service = (Protocol, PortRange);

/// The entries of a leaf.
pub(super) struct Leaf {
    node: Node,
    pub singles: Vec<(u16, Protocol, PortRange)>,
    pub crowds: BTreeMap<Service, Vec<u16>>,
}

impl Leaf {
    /// `None` if there are too many entries for one.
    pub fn at(node: Node, allow: &Allow) -> Option<Self> {
        let entries = || allow.within(node.marks());
        if node.has_children() && entries().take(LEAF + 1).count() > LEAF {
            return None;
        }
        let mut crowds: BTreeMap<Service, Vec<u16>> = BTreeMap::new();
        for (mark, protocol, ports) in entries() {
            crowds.entry((protocol, ports)).or_default().push(mark);
        }
        crowds.retain(|_, marks| marks.len() >= CROWD);
        let is_single =
            |(_, protocol, ports): &(u16, _, _)| !crowds.contains_key(&(*protocol, *ports));
        let singles = entries().filter(is_single).collect();
        Some(Self { node, singles, crowds })
    }

    /// The crowd that is all there is, and the leaf in its place. What leads to the root does not know.
    pub fn sole_crowd(&self) -> Option<Part> {
        let is_sole = self.singles.is_empty() && self.crowds.len() == 1;
        self.crowds().next().filter(|_| is_sole && self.node != Node::ROOT)
    }

    pub fn crowds(&self) -> impl Iterator<Item = Part> {
        self.crowds.keys().map(|service| Part::Crowd(self.node, *service))
    }

    /// Its chains.
    pub fn parts(&self) -> Vec<Part> {
        let own = self.sole_crowd().is_none().then_some(Part::Node(self.node));
        own.into_iter().chain(self.crowds()).collect()
    }
}
