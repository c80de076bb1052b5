//! The tree of a set that says what may be reached: nodes by four bits of the mark, as deep as there are
//! too many entries for one leaf. Of two such sets that differ in few marks, the trees differ in the
//! chains on the ways to these.
//!
//! ```text
//! root ─ mark 0xa000/0xf000 ─► root.a ─ mark 0xa300/0xf00 ─► root.a3 ─ tcp 53, mark 0xa311: accept
//!                                                               └ tcp 8080 ─► root.a3tcp-8080
//!                                                                               └ mark 0xa305: accept
//! ```
//!
//! Many marks of a leaf that may reach the same ports are a crowd, in a chain of its own whose rules need
//! not speak of these: half the work for a packet, and for who writes them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use policy::{PortRange, Protocol};

use super::{Book, Key, Lines, Tree, line};
use crate::{Action, Allow, ChainName, Family, Mark, Rule, Table};

/// The most rules of a leaf. A packet asks half of them on average, at some 10 ns each, and only the
/// first of a connection does.
const LEAF: usize = 256;

/// The fewest marks that are a crowd.
const CROWD: usize = 8;

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

/// What entries of a leaf may have in common.
type Service = (Protocol, PortRange);

/// A chain of a tree: that of a node, or of a crowd at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    node: Node,
    crowd: Option<Service>,
}

impl Part {
    pub const ROOT: Self = Self { node: Node::ROOT, crowd: None };
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
        if node.is_leaf(allow) {
            self.grow_leaf(node, allow, book);
        } else {
            book.put(self.key(node.into()), self.ways(node, allow));
            inhabited(node, allow).for_each(|child| self.grow_at(child, allow, book));
        }
    }

    fn grow_leaf(&self, node: Node, allow: &Allow, book: &mut Book) {
        let leaf = Leaf::of(node, allow);
        book.put(self.key(node.into()), self.singles(node, &leaf));
        for (service, marks) in &leaf.crowds {
            let crowd = Part { node, crowd: Some(*service) };
            book.put(self.key(crowd), self.members(crowd, marks));
        }
    }

    fn fell_at(&self, node: Node, allow: &Allow, book: &mut Book) {
        book.chains.remove(&self.key(node.into()));
        if node.is_leaf(allow) {
            for service in Leaf::of(node, allow).crowds.into_keys() {
                book.chains.remove(&self.key(Part { node, crowd: Some(service) }));
            }
        } else {
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
            (true, true) => {
                let later = Leaf::of(node, allow).crowds;
                for service in Leaf::of(node, before).crowds.into_keys() {
                    if !later.contains_key(&service) {
                        book.chains.remove(&self.key(Part { node, crowd: Some(service) }));
                    }
                }
                self.grow_leaf(node, allow, book);
            }
            (false, false) => {
                book.put(self.key(node.into()), self.ways(node, allow));
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
        let Part { node: Node { digits, depth }, crowd } = part;
        let digits = match usize::try_from(depth).expect("it is small") {
            0 => String::new(),
            width => format!("{digits:0width$x}"),
        };
        match crowd {
            _ if part == Part::ROOT => self.root.clone(),
            None => self.root.node(&digits),
            Some((protocol, ports)) => self.root.node(&format!("{digits}{protocol}-{ports}")),
        }
    }

    fn key(&self, part: Part) -> Key {
        (self.table, self.name(part).to_string())
    }

    /// The rules of a node that is no leaf.
    fn ways(&self, node: Node, allow: &Allow) -> Lines {
        let shift = 12 - 4 * node.depth;
        let way = |child: Node| {
            let digit = u32::from(child.digits & 0xf);
            let bits = Mark { value: digit << shift, mask: 0xf << shift };
            Rule::new(Action::Goto(self.name(child.into()))).mark(bits)
        };
        self.lines(node.into(), inhabited(node, allow).map(way))
    }

    /// The rules of a leaf. Whoever is in no crowd may be in another, so what leads there comes back.
    fn singles(&self, node: Node, leaf: &Leaf) -> Lines {
        let single =
            |&(mark, protocol, ports): &(u16, _, _)| self.found(mark).ports(protocol, ports);
        let crowd = |service: &Service| {
            let (protocol, ports) = *service;
            let crowd = self.name(Part { node, crowd: Some(*service) });
            Rule::new(Action::Jump(crowd)).ports(protocol, ports)
        };
        let rules = leaf.singles.iter().map(single).chain(leaf.crowds.keys().map(crowd));
        self.lines(node.into(), rules)
    }

    /// The rules of a crowd.
    fn members(&self, crowd: Part, marks: &[u16]) -> Lines {
        self.lines(crowd, marks.iter().map(|mark| self.found(*mark)))
    }

    fn found(&self, mark: u16) -> Rule {
        Rule::new(self.action.clone()).mark(Mark::exactly(mark.into()))
    }

    fn lines(&self, part: Part, rules: impl Iterator<Item = Rule>) -> Lines {
        let rules = rules.map(|rule| line(&rule, self.family)).collect();
        Lines { part: Some((self.root.clone(), part)), ..Lines::of(rules, true) }
    }
}

/// The entries of a leaf.
struct Leaf {
    singles: Vec<(u16, Protocol, PortRange)>,
    crowds: BTreeMap<Service, Vec<u16>>,
}

impl Leaf {
    fn of(node: Node, allow: &Allow) -> Self {
        let mut crowds: BTreeMap<Service, Vec<u16>> = BTreeMap::new();
        for (mark, protocol, ports) in allow.within(node.marks()) {
            crowds.entry((protocol, ports)).or_default().push(mark);
        }
        crowds.retain(|_, marks| marks.len() >= CROWD);
        let is_single =
            |(_, protocol, ports): &(u16, _, _)| !crowds.contains_key(&(*protocol, *ports));
        let singles = allow.within(node.marks()).filter(is_single).collect();
        Self { singles, crowds }
    }
}

impl From<Node> for Part {
    fn from(node: Node) -> Self {
        Self { node, crowd: None }
    }
}

fn is_inhabited(node: Node, allow: &Allow) -> bool {
    allow.within(node.marks()).next().is_some()
}

fn inhabited(node: Node, allow: &Allow) -> impl Iterator<Item = Node> {
    node.children().filter(|child| is_inhabited(*child, allow))
}
