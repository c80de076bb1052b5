//! The tree of a set that says what may be reached: nodes by four bits of the mark, as deep as there are
//! too many entries for one leaf. Of two such sets that differ in few marks, the trees differ in the
//! chains on the ways to these.

use std::{collections::BTreeSet, ops::RangeInclusive};

use super::{Book, Key, Lines, Tree, line};
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
pub(crate) struct Node {
    digits: u16,
    depth: u32,
}

impl Node {
    pub const ROOT: Self = Self { digits: 0, depth: 0 };

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
        book.put(self.key(node), self.lines(node, allow));
        if !node.is_leaf(allow) {
            inhabited(node, allow).for_each(|child| self.grow_at(child, allow, book));
        }
    }

    fn fell_at(&self, node: Node, allow: &Allow, book: &mut Book) {
        book.chains.remove(&self.key(node));
        if !node.is_leaf(allow) {
            inhabited(node, allow).for_each(|child| self.fell_at(child, allow, book));
        }
    }

    fn change_at(
        &self,
        node: Node,
        marks: &BTreeSet<u16>,
        [before, allow]: [&Allow; 2],
        book: &mut Book,
    ) {
        match (node.is_leaf(before), node.is_leaf(allow)) {
            (true, true) => book.put(self.key(node), self.lines(node, allow)),
            (false, false) => {
                book.put(self.key(node), self.lines(node, allow));
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

    fn name(&self, Node { digits, depth }: Node) -> ChainName {
        match usize::try_from(depth).expect("it is small") {
            0 => self.root.clone(),
            width => self.root.node(&format!("{digits:0width$x}")),
        }
    }

    fn key(&self, node: Node) -> Key {
        (self.table, self.name(node).to_string())
    }

    /// The rules of one chain.
    fn lines(&self, node: Node, allow: &Allow) -> Lines {
        let rules = if node.is_leaf(allow) {
            let entries = allow.within(node.marks());
            let rule = |(mark, protocol, ports): (u16, _, _)| {
                let rule = Rule::new(self.action.clone()).ports(protocol, ports);
                line(&rule.mark(Mark::exactly(mark.into())), self.family)
            };
            entries.map(rule).collect()
        } else {
            let shift = 12 - 4 * node.depth;
            let way = |child: Node| {
                let digit = u32::from(child.digits & 0xf);
                let bits = Mark { value: digit << shift, mask: 0xf << shift };
                line(&Rule::new(Action::Goto(self.name(child))).mark(bits), self.family)
            };
            inhabited(node, allow).map(way).collect()
        };
        Lines { node: Some((self.root.clone(), node)), ..Lines::of(rules, true) }
    }
}

fn is_inhabited(node: Node, allow: &Allow) -> bool {
    allow.within(node.marks()).next().is_some()
}

fn inhabited(node: Node, allow: &Allow) -> impl Iterator<Item = Node> {
    node.children().filter(|child| is_inhabited(*child, allow))
}
