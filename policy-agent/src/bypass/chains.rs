//! Where packets go that come to a rule of somebody else's, as far as rules are understood.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use netfilter::{Observed, Table};

use super::{
    is_ours,
    rule::{Action, Ends, Simple},
};

/// How deep chains are followed, as the kernel has no loops.
const DEEPEST: usize = 16;

/// The chains of others, each read once.
pub(super) struct Chains<'o> {
    observed: &'o Observed,
    table: Table,
    /// As far as it is sure that a packet comes.
    sure: BTreeMap<&'o str, Rc<[Simple<'o>]>>,
    /// To their ends.
    whole: BTreeMap<&'o str, Rc<[Simple<'o>]>>,
}

impl<'o> Chains<'o> {
    pub fn of(observed: &'o Observed, table: Table) -> Self {
        Self { observed, table, sure: BTreeMap::new(), whole: BTreeMap::new() }
    }

    /// The rules of a chain as far as it is sure that a packet comes: to the first that may refuse it, or send
    /// it back, for reasons that are not understood. What only accepts some, or does something beside, is passed.
    fn read_sure(&mut self, chain: &'o str) -> Rc<[Simple<'o>]> {
        if let Some(sure) = self.sure.get(chain) {
            return sure.clone();
        }
        let mut sure = Vec::new();
        for simple in &*self.read_whole(chain) {
            let is_last = match simple.action {
                Action::Accept if simple.conditional => continue,
                Action::To(beside) if !self.exists(beside) => continue,
                _ if simple.conditional => break,
                Action::To(chain) => self.may_refuse(chain, &mut BTreeSet::new()),
                _ => simple.is_about_all(),
            };
            sure.push(simple.clone());
            if is_last {
                break;
            }
        }
        let sure: Rc<[_]> = sure.into();
        self.sure.insert(chain, sure.clone());
        sure
    }

    fn exists(&self, chain: &str) -> bool {
        self.observed.rules(self.table, chain).is_some()
    }

    fn may_refuse(&mut self, chain: &'o str, asked: &mut BTreeSet<&'o str>) -> bool {
        asked.insert(chain)
            && self.read_whole(chain).iter().any(|simple| match simple.action {
                Action::Refuse => true,
                Action::To(chain) => self.may_refuse(chain, asked),
                Action::Accept | Action::Return => false,
            })
    }

    fn read_whole(&mut self, chain: &'o str) -> Rc<[Simple<'o>]> {
        let (observed, table) = (self.observed, self.table);
        let read = || {
            let rules = observed.rules(table, chain).unwrap_or_default();
            rules.iter().filter_map(|rule| Simple::read(rule)).collect()
        };
        self.whole.entry(chain).or_insert_with(read).clone()
    }

    /// Whether it is worth asking about each container.
    pub fn is_anybody_accepted(&mut self, simple: &Simple<'o>) -> bool {
        match simple.action {
            Action::Accept | Action::Return => true,
            Action::Refuse => false,
            Action::To(chain) if is_ours(chain) => false,
            Action::To(chain) => {
                let may = |one: &Simple<'_>| matches!(one.action, Action::Accept | Action::To(_));
                self.read_whole(chain).iter().any(may)
            }
        }
    }

    /// Whether a packet with these `ends` that comes to this rule gets no further in FORWARD; `deep` says in the
    /// how manieth chain it is.
    pub fn let_go(&mut self, simple: &Simple<'o>, ends: &Ends, deep: usize) -> bool {
        simple.is_about(ends)
            && match simple.action {
                Action::Accept => true,
                Action::Return => deep == 0,
                Action::Refuse => false,
                Action::To(chain) => deep < DEEPEST && self.accepts(chain, ends, deep + 1),
            }
    }

    /// Whether a chain accepts such a packet in any case.
    fn accepts(&mut self, chain: &'o str, ends: &Ends, deep: usize) -> bool {
        for simple in &*self.read_sure(chain) {
            if self.let_go(simple, ends, deep) {
                return true;
            }
            if simple.sends_back(ends) {
                return false;
            }
        }
        false
    }

    /// Whether one of them may get no further, the first of a connection. Chains in `asked` are known to accept
    /// none, or are being asked.
    pub fn may_let_go(
        &mut self,
        simple: &Simple<'o>,
        ends: &Ends,
        asked: &mut BTreeSet<&'o str>,
        deep: usize,
    ) -> bool {
        simple.may_be_about(ends)
            && match simple.action {
                Action::Accept => true,
                Action::Return => deep == 0,
                Action::Refuse => false,
                Action::To(chain) if is_ours(chain) || !asked.insert(chain) => false,
                Action::To(chain) => self.may_accept(chain, ends, asked, deep + 1),
            }
    }

    fn may_accept(
        &mut self,
        chain: &'o str,
        ends: &Ends,
        asked: &mut BTreeSet<&'o str>,
        deep: usize,
    ) -> bool {
        for simple in &*self.read_whole(chain) {
            if self.may_let_go(simple, ends, asked, deep) {
                return true;
            }
            if simple.sends_back(ends) {
                return false;
            }
        }
        false
    }
}
