//! What is said to the kernel.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
};

use super::{Plan, SetStep, Step};
use crate::{Dialect, Element, Family, Table, render::nft};

impl Plan {
    /// What is said to the kernel: the input of `iptables-restore --noflush`, or of `nft -f`. nft
    /// deletes rules by number only; where one is to be deleted, its text stands there in brackets.
    pub fn render(&self) -> String {
        match self.dialect {
            Dialect::Iptables(_) | Dialect::DualIptables => {
                Family::ALL.map(|family| self.restore_text(family)).concat()
            }
            Dialect::Nft => self.nft_text(|_, _, rule| format!("<{rule}>")),
        }
    }

    /// The part that is said to iptables, or to ip6tables where both are spoken to.
    pub(crate) fn restore_text(&self, family: Family) -> String {
        let mut text = String::new();
        for (table, steps) in &self.tables {
            let six = table.in_ip6tables();
            if six.is_some() != (family == Family::V6) {
                continue;
            }
            let table = six.unwrap_or(*table);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "*{table}");
            steps.iter().for_each(|step| {
                let _ = writeln!(text, "{step}");
            });
            text.push_str("COMMIT\n");
        }
        text
    }

    /// One transaction in nft's words: chains are made or emptied first, since elements and rules may
    /// lead to them; what may lead to a chain, or ask a set, goes before that chain or set does.
    pub(crate) fn nft_text(&self, handle: impl Fn(Table, &str, &str) -> String) -> String {
        let mut text = String::new();
        let mut line = |line: fmt::Arguments<'_>| {
            let _ = writeln!(text, "{line}");
        };
        for table in Table::ALL {
            let shared = table == Table::Filter && !self.sets.is_empty();
            if shared || self.tables.contains_key(&table) || self.wakes.contains(&table) {
                line(format_args!("add table {}", nft::table(table)));
            }
        }
        for (table, steps) in &self.tables {
            let inet = nft::table(*table);
            let mut bases = BTreeSet::new();
            for step in steps {
                let (Step::Declare(chain)
                | Step::Delete(chain, _)
                | Step::Prepend(chain, _)
                | Step::Append(chain, _)
                | Step::Remove(chain)) = step;
                if let Some(base) = nft::base(*table, chain)
                    && bases.insert(chain)
                {
                    let chain = nft::chain(*table, chain);
                    line(format_args!("add chain {inet} {chain} {{ {base} }}"));
                }
                if let Step::Declare(chain) = step {
                    let chain = nft::chain(*table, chain);
                    line(format_args!("add chain {inet} {chain}"));
                    line(format_args!("flush chain {inet} {chain}"));
                }
            }
            if *table == Table::Filter && bases.contains(&"INPUT".to_owned()) {
                line(format_args!("add chain {inet} {}", nft::OPERATORS));
            }
        }
        let inet = nft::table(Table::Filter);
        for step in &self.sets {
            match step {
                SetStep::Replace(name, kind) => {
                    line(format_args!("delete set {inet} {name}"));
                    line(format_args!("add {} {inet} {name} {{ {kind}; }}", kind.noun()));
                }
                SetStep::Create(name, kind) => {
                    line(format_args!("add {} {inet} {name} {{ {kind}; }}", kind.noun()));
                }
                SetStep::Flush(name, kind) => {
                    line(format_args!("flush {} {inet} {name}", kind.noun()));
                }
                SetStep::Delete(name, elements) => {
                    let keys: Vec<_> = elements.iter().map(Element::key).collect();
                    line(format_args!("delete element {inet} {name} {{ {} }}", keys.join(", ")));
                }
                SetStep::Add(name, elements) => {
                    let elements: Vec<_> = elements.iter().map(ToString::to_string).collect();
                    line(format_args!("add element {inet} {name} {{ {} }}", elements.join(", ")));
                }
                SetStep::Drop(_) => {}
            }
        }
        let all =
            || self.tables.iter().flat_map(|(table, steps)| steps.iter().map(move |s| (*table, s)));
        for (table, step) in all() {
            let inet = nft::table(table);
            match step {
                Step::Delete(chain, rule) => {
                    let (handle, chain) = (handle(table, chain, rule), nft::chain(table, chain));
                    line(format_args!("delete rule {inet} {chain} handle {handle}"));
                }
                Step::Prepend(chain, rule) => {
                    line(format_args!("insert rule {inet} {} {rule}", nft::chain(table, chain)));
                }
                Step::Append(chain, rule) => {
                    line(format_args!("add rule {inet} {} {rule}", nft::chain(table, chain)));
                }
                Step::Declare(_) | Step::Remove(_) => {}
            }
        }
        for (table, step) in all() {
            if let Step::Remove(chain) = step {
                line(format_args!(
                    "delete chain {} {}",
                    nft::table(table),
                    nft::chain(table, chain)
                ));
            }
        }
        for step in &self.sets {
            if let SetStep::Drop(name) = step {
                line(format_args!("delete set {inet} {name}"));
            }
        }
        text
    }
}

/// One line of `iptables-restore`'s input.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Declare(chain) => write!(f, ":{chain} - [0:0]"),
            Self::Delete(chain, rule) => write!(f, "-D {chain} {rule}"),
            Self::Prepend(chain, rule) => write!(f, "-I {chain} 1 {rule}"),
            Self::Append(chain, rule) => write!(f, "-A {chain} {rule}"),
            Self::Remove(chain) => write!(f, "-X {chain}"),
        }
    }
}
