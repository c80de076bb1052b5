//! The tree of a set that says what may be reached: nodes by two bits of the mark, as deep as there are
//! too many entries for one leaf. Of two such sets that differ in few marks, the trees differ in the
//! chains on the ways to these.
//!
//! ```text
//! root ─ mark 0x8000/0xc000 ─► root.2 ─ mark 0x3000/0x3000 ─► root.23 ─ tcp 53, mark 0xb311: accept
//!                                     │                          ├ tcp 8080 ─► root.23tcp-8080
//!                                     │                          │               └ mark 0xb305: accept
//!                                     │                          └ mark 0xb317 ─► root.23mark-b317
//!                                     │                                          └ tcp 5432: accept
//!                                     └ tcp 8080, mark 0x0/0x3000 ─► root.20tcp-8080
//!                                                                     └ mark 0x8001: accept
//! ```
//!
//! Entries of a leaf that have the ports in common, or the mark, are a group, in a chain of its own whose
//! rules need not speak of these: half the work for a packet, and for who writes them. A leaf that is one
//! group with the same ports and nothing else is that chain.

mod leaf;
mod node;

use std::collections::BTreeSet;

use self::{
    leaf::{Common, Entry, Leaf},
    node::Node,
};
use super::{Book, Key, Lines, Tree, line};
use crate::{Action, Allow, ChainName, Family, Mark, Rule, Table};

/// Makes and changes one tree.
pub(super) struct Grower<'a> {
    table: Table,
    root: &'a ChainName,
    action: &'a Action,
    family: Family,
}

/// A chain of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Node(Node),
    Group(Node, Common),
}

impl Part {
    pub const ROOT: Self = Self::Node(Node::ROOT);
}

impl<'a> Grower<'a> {
    pub fn of(table: Table, tree: &'a Tree, family: Family) -> Self {
        Self { table, root: &tree.root, action: &tree.action, family }
    }

    /// Puts in the tree of `allow`.
    pub fn grow(&self, allow: &Allow, book: &mut Book) {
        self.grow_at(Node::ROOT, allow, book);
    }

    /// Takes out the tree of `allow`.
    pub fn fell(&self, allow: &Allow, book: &mut Book) {
        self.fell_at(Node::ROOT, allow, book);
    }

    /// Makes the tree of `before` that of `allow`.
    pub fn change(&self, before: &Allow, allow: &Allow, book: &mut Book) {
        let marks = before.changed_marks(allow);
        if !marks.is_empty() {
            self.change_at(Node::ROOT, &marks, [before, allow], book);
        }
    }

    fn grow_at(&self, node: Node, allow: &Allow, book: &mut Book) {
        if let Some(leaf) = Leaf::at(node, allow) {
            return self.grow_leaf(&leaf, book);
        }
        self.put(Part::Node(node), self.ways(node, allow), book);
        inhabited(node, allow).for_each(|child| self.grow_at(child, allow, book));
    }

    fn grow_leaf(&self, leaf: &Leaf, book: &mut Book) {
        for part in leaf.parts() {
            match part {
                Part::Node(_) => self.put(part, self.singles(leaf), book),
                Part::Group(_, common) => {
                    self.put(part, self.members(common, &leaf.groups[&common]), book);
                }
            }
        }
    }

    fn fell_at(&self, node: Node, allow: &Allow, book: &mut Book) {
        if let Some(leaf) = Leaf::at(node, allow) {
            return leaf.parts().into_iter().for_each(|part| self.remove(part, book));
        }
        self.remove(Part::Node(node), book);
        inhabited(node, allow).for_each(|child| self.fell_at(child, allow, book));
    }

    fn change_at(
        &self,
        node: Node,
        marks: &BTreeSet<u16>,
        [before, allow]: [&Allow; 2],
        book: &mut Book,
    ) {
        match [before, allow].map(|allow| Leaf::at(node, allow)) {
            [Some(before), Some(leaf)] => {
                let stays = leaf.parts();
                let gone = before.parts().into_iter().filter(|part| !stays.contains(part));
                gone.for_each(|part| self.remove(part, book));
                self.grow_leaf(&leaf, book);
            }
            [None, None] => {
                self.put(Part::Node(node), self.ways(node, allow), book);
                for child in node.children().filter(|child| marks.range(child.marks()).count() > 0)
                {
                    match [before, allow].map(|allow| is_inhabited(child, allow)) {
                        [true, true] => self.change_at(child, marks, [before, allow], book),
                        [true, false] => self.fell_at(child, before, book),
                        [false, true] => self.grow_at(child, allow, book),
                        [false, false] => {}
                    }
                }
            }
            _ => {
                self.fell_at(node, before, book);
                self.grow_at(node, allow, book);
            }
        }
    }

    fn name(&self, part: Part) -> ChainName {
        match part {
            Part::ROOT => self.root.clone(),
            Part::Node(node) => self.root.node(&node.to_string()),
            Part::Group(node, Common::Service(protocol, ports)) => {
                self.root.node(&format!("{node}{protocol}-{ports}"))
            }
            Part::Group(node, Common::Mark(mark)) => {
                self.root.node(&format!("{node}mark-{mark:x}"))
            }
        }
    }

    fn key(&self, part: Part) -> Key {
        (self.table, self.name(part).to_string())
    }

    fn put(&self, part: Part, rules: impl Iterator<Item = Rule>, book: &mut Book) {
        let rules = rules.map(|rule| line(&rule, self.family)).collect();
        let lines = Lines { part: Some((self.root.clone(), part)), ..Lines::of(rules, true) };
        book.put(self.key(part), lines);
    }

    fn remove(&self, part: Part, book: &mut Book) {
        book.chains.remove(&self.key(part));
    }

    /// The rules of a node that is no leaf.
    fn ways(&self, node: Node, allow: &Allow) -> impl Iterator<Item = Rule> {
        inhabited(node, allow).map(|child| {
            let group = Leaf::at(child, allow).and_then(|leaf| leaf.sole_service());
            self.way(group.unwrap_or(Part::Node(child)), Action::Goto).mark(child.last_digit())
        })
    }

    /// The rules of a leaf. Who is not in a group may be in another, so what leads to one comes back.
    fn singles(&self, leaf: &Leaf) -> impl Iterator<Item = Rule> {
        let single = |&(mark, protocol, ports): &Entry| {
            self.found().mark(Mark::exactly(mark.into())).ports(protocol, ports)
        };
        let groups = leaf.group_parts().map(|group| self.way(group, Action::Jump));
        leaf.singles.iter().map(single).chain(groups)
    }

    /// The rules of a group.
    fn members(&self, common: Common, entries: &[Entry]) -> impl Iterator<Item = Rule> {
        entries.iter().map(move |(mark, protocol, ports)| match common {
            Common::Service(..) => self.found().mark(Mark::exactly((*mark).into())),
            Common::Mark(_) => self.found().ports(*protocol, *ports),
        })
    }

    fn way(&self, part: Part, go: fn(ChainName) -> Action) -> Rule {
        let rule = Rule::new(go(self.name(part)));
        match part {
            Part::Node(_) => rule,
            Part::Group(_, Common::Service(protocol, ports)) => rule.ports(protocol, ports),
            Part::Group(_, Common::Mark(mark)) => rule.mark(Mark::exactly(mark.into())),
        }
    }

    fn found(&self) -> Rule {
        Rule::new(self.action.clone())
    }
}

fn is_inhabited(node: Node, allow: &Allow) -> bool {
    allow.within(node.marks()).next().is_some()
}

fn inhabited(node: Node, allow: &Allow) -> impl Iterator<Item = Node> {
    node.children().filter(|child| is_inhabited(*child, allow))
}
