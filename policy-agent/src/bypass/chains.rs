//! What becomes of packets that come to a rule of somebody else's, as far as rules are understood.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use netfilter::{Observed, Table};

use super::{
    is_ours,
    rule::{Action, Ends, Meets, Rule},
};

/// What may become of the packets with some ends that come to a rule or a chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Fate {
    pub accepted: bool,
    pub refused: bool,
    /// They leave the chain and go on where it was jumped to.
    pub returned: bool,
    /// They come to the next rule. Never of a chain.
    pub passed: bool,
}

/// The chains of others, each read once.
pub(super) struct Chains<'o> {
    observed: &'o Observed,
    table: Table,
    rules: HashMap<String, Rc<[Rule]>>,
}

/// Those packets with some ends came to already, and what may become of them there.
pub(super) type Known = BTreeMap<String, Fate>;

impl<'o> Chains<'o> {
    pub fn of(observed: &'o Observed, table: Table) -> Self {
        Self { observed, table, rules: HashMap::new() }
    }

    /// What may become of packets with these `ends` at a rule.
    pub fn fate_at(&mut self, rule: &Rule, ends: &Ends, known: &mut Known) -> Fate {
        let meets = rule.meets(ends);
        if meets == Meets::None {
            return Fate { passed: true, ..Fate::default() };
        }
        let nothing = Fate::default();
        let fate = match &rule.action {
            Action::Accept => Fate { accepted: true, ..nothing },
            Action::Refuse => Fate { refused: true, ..nothing },
            Action::Return => Fate { returned: true, ..nothing },
            Action::Beside => Fate { passed: true, ..nothing },
            Action::Jump(chain) => {
                let fate = self.fate_in(chain, ends, known);
                Fate { passed: fate.returned, returned: false, ..fate }
            }
            Action::Goto(chain) => self.fate_in(chain, ends, known),
        };
        Fate { passed: fate.passed || meets == Meets::Some, ..fate }
    }

    fn fate_in(&mut self, chain: &str, ends: &Ends, known: &mut Known) -> Fate {
        // Ours are ours to repair.
        if is_ours(chain) {
            return Fate { returned: true, ..Fate::default() };
        }
        if let Some(fate) = known.get(chain) {
            return *fate;
        }
        // What is no chain, and nobody here knows, may do anything; so may a chain that leads to itself.
        let anything = Fate { accepted: true, refused: true, returned: true, passed: false };
        known.insert(chain.to_owned(), anything);
        let Some(rules) = self.read(chain) else { return anything };
        let mut fate = Fate::default();
        let mut goes_on = true;
        for rule in &*rules {
            let here = self.fate_at(rule, ends, known);
            fate.accepted |= here.accepted;
            fate.refused |= here.refused;
            fate.returned |= here.returned;
            if !here.passed {
                goes_on = false;
                break;
            }
        }
        fate.returned |= goes_on;
        known.insert(chain.to_owned(), fate);
        fate
    }

    fn read(&mut self, chain: &str) -> Option<Rc<[Rule]>> {
        if let Some(rules) = self.rules.get(chain) {
            return Some(rules.clone());
        }
        let rules = self.observed.rules(self.table, chain)?;
        let rules: Rc<[Rule]> = rules.iter().filter_map(|rule| Rule::read(rule)).collect();
        self.rules.insert(chain.to_owned(), rules.clone());
        Some(rules)
    }
}
