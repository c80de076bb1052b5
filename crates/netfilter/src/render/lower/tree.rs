//! The tree of a set that says what may be reached: nodes by four bits of the mark, as deep as there are
//! too many entries for one leaf. Of two such sets that differ in few marks, the trees differ in the
//! chains on the ways to these.

use std::{collections::BTreeSet, ops::RangeInclusive};

use super::{Chains, Lines, Tree, iptables, put};
use crate::{Action, Allow, ChainName, Family, Mark, Rule, Table};

/// The most rules of a leaf. A packet asks half of them on average, at some 10 ns each, and only the
/// first of a connection does.
const LEAF: usize = 256;

/// All digits of a mark.
const DEPTH: u32 = 4;

/// Makes and changes one tree.
pub(super) struct Grower<'a> {
    table: Table,
    root: &'a ChainName,
    action: &'a Action,
    family: Family,
}

/// The marks that begin with the same digits, in steps of four bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Node {
    digits: u16,
    depth: u32,
}

impl Node {
    const ROOT: Self = Self { digits: 0, depth: 0 };

    fn marks(self) -> RangeInclusive<u16> {
        let below = 16 - 4 * self.depth;
        let rest = u16::try_from((1u32 << below) - 1).expect("there are 16 bits");
        let first = self.digits.checked_shl(below).unwrap_or(0);
        first..=first | rest
    }

    fn children(self) -> impl Iterator<Item = Self> {
        (0..16).map(move |digit| Self { digits: self.digits << 4 | digit, depth: self.depth + 1 })
    }

    fn is_leaf(self, allow: &Allow) -> bool {
        self.depth == DEPTH || allow.within(self.marks()).take(LEAF + 1).count() <= LEAF
    }
}

impl<'a> Grower<'a> {
    pub fn of(table: Table, tree: &'a Tree, family: Family) -> Self {
        Self { table, root: &tree.root, action: &tree.action, family }
    }

    /// Puts in the tree of `allow`.
    pub fn grow(&self, allow: &Allow, chains: &mut Chains) {
        self.grow_at(Node::ROOT, allow, chains);
    }

    /// Takes out the tree of `allow`.
    pub fn fell(&self, allow: &Allow, chains: &mut Chains) {
        self.fell_at(Node::ROOT, allow, chains);
    }

    /// Makes the tree of `before` that of `allow`.
    pub fn change(&self, before: &Allow, allow: &Allow, chains: &mut Chains) {
        let marks = before.changed_marks(allow);
        if !marks.is_empty() {
            self.change_at(Node::ROOT, &marks, [before, allow], chains);
        }
    }

    fn grow_at(&self, node: Node, allow: &Allow, chains: &mut Chains) {
        put(chains, self.key(node), self.lines(node, allow));
        if !node.is_leaf(allow) {
            inhabited(node, allow).for_each(|child| self.grow_at(child, allow, chains));
        }
    }

    fn fell_at(&self, node: Node, allow: &Allow, chains: &mut Chains) {
        chains.remove(&self.key(node));
        if !node.is_leaf(allow) {
            inhabited(node, allow).for_each(|child| self.fell_at(child, allow, chains));
        }
    }

    fn change_at(
        &self,
        node: Node,
        marks: &BTreeSet<u16>,
        [before, allow]: [&Allow; 2],
        chains: &mut Chains,
    ) {
        match (node.is_leaf(before), node.is_leaf(allow)) {
            (true, true) => put(chains, self.key(node), self.lines(node, allow)),
            (false, false) => {
                put(chains, self.key(node), self.lines(node, allow));
                for child in node.children().filter(|child| marks.range(child.marks()).count() > 0)
                {
                    match [before, allow].map(|allow| is_inhabited(child, allow)) {
                        [true, true] => self.change_at(child, marks, [before, allow], chains),
                        [true, false] => self.fell_at(child, before, chains),
                        [false, true] => self.grow_at(child, allow, chains),
                        [false, false] => {}
                    }
                }
            }
            _ => {
                self.fell_at(node, before, chains);
                self.grow_at(node, allow, chains);
            }
        }
    }

    fn name(&self, Node { digits, depth }: Node) -> ChainName {
        match usize::try_from(depth).expect("it is small") {
            0 => self.root.clone(),
            width => self.root.part(&format!("{digits:0width$x}")),
        }
    }

    fn key(&self, node: Node) -> (Table, String) {
        (self.table, self.name(node).to_string())
    }

    /// The rules of one chain.
    fn lines(&self, node: Node, allow: &Allow) -> Lines {
        let rules = if node.is_leaf(allow) {
            let entries = allow.within(node.marks());
            let rule = |(mark, protocol, ports): (u16, _, _)| {
                let rule = Rule::new(self.action.clone()).ports(protocol, ports);
                self.line(&rule.mark(Mark::exactly(mark.into())))
            };
            entries.map(rule).collect()
        } else {
            let shift = 12 - 4 * node.depth;
            let way = |child: Node| {
                let digit = u32::from(child.digits & 0xf);
                let bits = Mark { value: digit << shift, mask: 0xf << shift };
                self.line(&Rule::new(Action::Goto(self.name(child))).mark(bits))
            };
            inhabited(node, allow).map(way).collect()
        };
        Lines::of(rules, true)
    }

    fn line(&self, rule: &Rule) -> String {
        iptables::lines(rule, self.family).pop().expect("a rule of a tree is of its family")
    }
}

fn is_inhabited(node: Node, allow: &Allow) -> bool {
    allow.within(node.marks()).next().is_some()
}

fn inhabited(node: Node, allow: &Allow) -> impl Iterator<Item = Node> {
    node.children().filter(|child| is_inhabited(*child, allow))
}
