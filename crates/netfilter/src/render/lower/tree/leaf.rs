//! What a leaf holds.

use std::collections::BTreeMap;

use policy::{PortRange, Protocol};

use super::{Node, Part};
use crate::Allow;

/// The most entries of a leaf, but for one at the deepest nodes there may be. A packet passes by half of
/// them on average, at some 10 ns each, and only the first of a connection does.
const LEAF: usize = 128;

/// The fewest entries that are a group.
const GROUP: usize = 8;

/// A mark, and what it may reach.
pub(super) type Entry = (u16, Protocol, PortRange);

/// What the entries of a group have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Common {
    Service(Protocol, PortRange),
    Mark(u16),
}

/// The entries of a leaf, each in one place.
pub(super) struct Leaf {
    node: Node,
    pub singles: Vec<Entry>,
    pub groups: BTreeMap<Common, Vec<Entry>>,
}

impl Leaf {
    /// `None` if there are too many entries for one.
    pub fn at(node: Node, allow: &Allow) -> Option<Self> {
        let entries = || allow.within(node.marks());
        if node.has_children() && entries().take(LEAF + 1).count() > LEAF {
            return None;
        }
        let (by_service, rest) =
            grouped(entries(), |(_, protocol, ports)| Common::Service(*protocol, *ports));
        let (by_mark, singles) = grouped(rest.into_iter(), |(mark, ..)| Common::Mark(*mark));
        Some(Self { node, singles, groups: by_service.into_iter().chain(by_mark).collect() })
    }

    /// The group that is all there is, and the leaf in its place. What leads to the root does not know.
    pub fn sole_service(&self) -> Option<Part> {
        let is_sole = self.singles.is_empty() && self.groups.len() == 1 && self.node != Node::ROOT;
        let is_service = |part: &Part| matches!(part, Part::Group(_, Common::Service(..)));
        self.group_parts().next().filter(|part| is_sole && is_service(part))
    }

    pub fn group_parts(&self) -> impl Iterator<Item = Part> {
        self.groups.keys().map(|common| Part::Group(self.node, *common))
    }

    /// Its chains.
    pub fn parts(&self) -> Vec<Part> {
        let own = self.sole_service().is_none().then_some(Part::Node(self.node));
        own.into_iter().chain(self.group_parts()).collect()
    }
}

/// What has enough in common with others, and the rest.
fn grouped(
    entries: impl Iterator<Item = Entry>,
    common: impl Fn(&Entry) -> Common,
) -> (BTreeMap<Common, Vec<Entry>>, Vec<Entry>) {
    let mut groups: BTreeMap<Common, Vec<Entry>> = BTreeMap::new();
    for entry in entries {
        groups.entry(common(&entry)).or_default().push(entry);
    }
    let (groups, rest): (BTreeMap<_, _>, BTreeMap<_, _>) =
        groups.into_iter().partition(|(_, entries)| entries.len() >= GROUP);
    (groups, rest.into_values().flatten().collect())
}
