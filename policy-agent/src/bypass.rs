//! Rules of others in FORWARD, where those of containers stand.
//!
//! Our own rules stand in front of all others, those of containers behind what an operator put there
//! before. So in iptables, where the chain is the operator's, a plain `-j ACCEPT` there opens the world to
//! all containers though nothing of theirs is missing: it is told ([`found`]), and so is what may let some of
//! their packets go, by `-p tcp` or by what is not understood. In nftables the chain is in a
//! table of our own, in which nobody else has a say: whatever is not ours goes ([`strangers`]).

mod chains;
mod links;
mod rule;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use netfilter::{Builtin, Dialect, Drift, Observed, Plan, Step, Table};
use serde::{Serialize, Serializer};

use chains::{Chains, Fate, Known};
pub(crate) use links::Links;
use rule::{Action, End, Ends, Rule};

/// The chain of what a container sends to the world, but for its name.
const JUDGES: &str = "netout--";
/// Chains of ours, in which nothing of anybody else's is.
const OURS: [&str; 6] = ["vpa--", "asg-", "input--", "netin--", JUDGES, "overlay--"];

/// How many rules are told of.
const TOLD: usize = 20;

/// A rule that stands in front of containers' rules, and lets their packets go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bypass {
    table: Table,
    rule: String,
    /// Whether all that begin a connection one way, or perhaps some.
    pub is_whole: bool,
    /// Past whose rules.
    containers: BTreeSet<String>,
}

/// A rule in our own table that is none of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stranger {
    parent: String,
    rule: String,
}

/// What an operator is told of one rule. Two are the same if they are about the same rule, whichever
/// containers come and go.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    about: String,
    text: String,
}

/// Where nothing but ours may stand, in nftables.
const PARENTS: [Builtin; 2] = [Builtin::Forward, Builtin::Input];
/// The way to what is the operators', in front of everything that comes to the host.
const TO_OPERATORS: &str = "jump operator-input";

/// The rules in our own table, in nft's words, that are none of ours.
pub(crate) fn strangers(observed: &Observed) -> Vec<Stranger> {
    let is_ours = |rule: &str| {
        // What is quoted may hold anything.
        let unquoted = rule.split('"').step_by(2);
        let mut words = unquoted.flat_map(|part| part.split(' '));
        let leads = words.any(|word| matches!(word, "jump" | "goto"));
        leads && words.next().and_then(|to| to.strip_prefix("filter/")).is_some_and(is_ours)
    };
    let mut strangers = Vec::new();
    for parent in PARENTS.map(|parent| parent.to_string()) {
        let rules = observed.rules(Table::Filter, &parent).unwrap_or_default();
        let mut leads_to_operators = false;
        for rule in rules.iter().filter(|rule| !is_ours(rule)) {
            // Once; another one was put in front of a stranger.
            let is_first = rule == TO_OPERATORS && !leads_to_operators;
            leads_to_operators |= is_first;
            if !is_first || parent == forward() {
                strangers.push(Stranger { parent: parent.clone(), rule: rule.clone() });
            }
        }
    }
    strangers
}

/// Takes strangers out.
pub(crate) fn removal(strangers: &[Stranger]) -> Plan {
    let step = |one: &Stranger| Step::Delete(one.parent.clone(), one.rule.clone());
    Plan::of(Dialect::Nft, Table::Filter, strangers.iter().map(step).collect())
}

impl Stranger {
    /// What was taken out, in words.
    pub fn drift(&self) -> Drift {
        let what = format!("foreign rule `{}`, in a table that is netman's alone", self.rule);
        Drift { chain: self.parent.clone(), what }
    }

    /// What could not be.
    pub fn kept(&self, why: &str) -> Notice {
        let Self { parent, rule } = self;
        let text = format!("`{rule}` in {parent} cannot be taken out: {why}");
        Notice { about: format!("{parent} {rule}"), text }
    }
}

/// The rules of others in iptables' FORWARD that let containers' packets go, or may.
pub(crate) fn found(observed: &Observed, links: &Links) -> Vec<Bypass> {
    let tables = [Table::Filter, Table::Filter6].into_iter();
    tables.flat_map(|table| in_table(observed, table, links)).collect()
}

fn in_table(observed: &Observed, table: Table, links: &Links) -> Vec<Bypass> {
    let listed = observed.rules(table, &forward()).unwrap_or_default();
    let rules: Vec<_> = listed.iter().map(|rule| Rule::read(rule)).collect();
    let others = rules.iter().enumerate().filter_map(|(place, rule)| Some((place, rule.as_ref()?)));
    let others: Vec<_> = others.filter(|(_, rule)| !leads_to_ours(rule)).collect();
    if others.is_empty() {
        return Vec::new();
    }
    let mut chains = Chains::of(observed, table);
    let mut found: BTreeMap<(usize, bool), BTreeSet<String>> = BTreeMap::new();
    for Judged { place, handle, ends } in of_containers(&rules, links) {
        let mut known = Known::new();
        for (before, rule) in others.iter().take_while(|(other, _)| *other < place) {
            let fate = chains.fate_at(rule, &ends, &mut known);
            // What goes out of FORWARD at its end meets the chain's policy, which is not known here.
            if fate.accepted || fate.returned {
                let is_whole = fate == Fate { accepted: true, ..Fate::default() };
                found.entry((*before, !is_whole)).or_default().insert(handle.clone());
            }
            if !fate.passed {
                break;
            }
        }
    }
    let told = found.into_iter().map(|((place, is_partly), containers)| {
        let rule = listed[place].clone();
        Bypass { table, rule, is_whole: !is_partly, containers }
    });
    told.collect()
}

/// A rule that judges what a container sends to the world.
struct Judged {
    place: usize,
    handle: String,
    ends: Ends,
}

/// Those among `rules`. What comes to containers, from each other or the world, is judged by our own rules, in
/// front of all.
fn of_containers(rules: &[Option<Rule>], links: &Links) -> Vec<Judged> {
    let judged = |(place, rule): (usize, &Option<Rule>)| {
        let rule = rule.as_ref()?;
        let Action::Jump(chain) = &rule.action else { return None };
        let handle = chain.strip_prefix(JUDGES)?.to_owned();
        let mut ends = rule::ends(rule);
        let (_, address) = ends.at.iter().find(|(end, _)| *end == End::Source)?;
        ends.link = links.to(*address).map(str::to_owned);
        Some(Judged { place, handle, ends })
    };
    rules.iter().enumerate().filter_map(judged).collect()
}

fn leads_to_ours(rule: &Rule) -> bool {
    matches!(&rule.action, Action::Jump(chain) if is_ours(chain))
}

impl Bypass {
    /// What an operator is to know, and to do.
    pub fn notice(&self) -> Notice {
        let Self { table, rule, is_whole, .. } = self;
        let program = if *table == Table::Filter6 { "ip6tables" } else { "iptables" };
        let lets = if *is_whole { "lets packets" } else { "may let some packets" };
        let then = match is_whole {
            true => format!("take it out, or put it behind: {program} -D FORWARD {rule}"),
            false => {
                "if they are not meant to, put it behind, or refuse them in front of it".to_owned()
            }
        };
        let text = format!(
            "`{rule}` in FORWARD ({table}), a rule of somebody else's, {lets} of {} go before they come to \
             what stands for them there; {then}",
            self.whose()
        );
        Notice { about: format!("{table} {rule}"), text }
    }

    fn whose(&self) -> String {
        let first = self.containers.first().map_or("", String::as_str);
        match self.containers.len() {
            1 => format!("container {first}"),
            count => format!("container {first} and {} more", count - 1),
        }
    }
}

impl Notice {
    /// The first of many, and how many more there are.
    pub fn first_of(all: &[Bypass]) -> Vec<Self> {
        let mut told: Vec<_> = all.iter().take(TOLD).map(Bypass::notice).collect();
        if let Some(more) = all.len().checked_sub(TOLD).filter(|more| *more > 0) {
            told.push(Self { about: "more".to_owned(), text: format!("and {more} rules more") });
        }
        told
    }
}

impl Eq for Notice {}

impl PartialEq for Notice {
    fn eq(&self, other: &Self) -> bool {
        self.about == other.about
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Notice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

fn is_ours(chain: &str) -> bool {
    OURS.iter().any(|prefix| chain.starts_with(prefix))
}

fn forward() -> String {
    Builtin::Forward.to_string()
}

#[cfg(test)]
mod tests;
