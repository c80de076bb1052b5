//! Rules of others in FORWARD, where those of containers stand.
//!
//! Our own rules stand in front of all others, those of containers behind what an operator put there
//! before. So in iptables, where the chain is the operator's, a plain `-j ACCEPT` there opens the world to
//! all containers though nothing of theirs is missing: it is told ([`found`]), and so is what may let some of
//! their packets go, by `-p tcp` or by what is not understood. In nftables the chain is in a
//! table of our own, in which nobody else has a say: whatever is not ours goes ([`strangers`]).

mod chains;
mod rule;

use std::collections::BTreeSet;

use netfilter::{Builtin, Dialect, Drift, Observed, Plan, Step, Table};

use chains::Chains;
use rule::{Action, End, Ends, Simple};

/// Chains that stand for one container each.
const OF_CONTAINERS: [&str; 2] = ["netout--", "overlay--"];
/// Other chains of ours, in which nothing of anybody else's is.
const OURS: [&str; 4] = ["vpa--", "asg-", "input--", "netin--"];

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
    pub fn kept(&self, why: &str) -> String {
        format!("`{}` in {} cannot be taken out: {why}", self.rule, self.parent)
    }
}

/// The rules of others in iptables' FORWARD that let containers' packets go, or may.
pub(crate) fn found(observed: &Observed) -> Vec<Bypass> {
    [Table::Filter, Table::Filter6]
        .into_iter()
        .flat_map(|table| in_table(observed, table))
        .collect()
}

fn in_table(observed: &Observed, table: Table) -> Vec<Bypass> {
    let rules = observed.rules(table, &forward()).unwrap_or_default();
    let of_containers = of_containers(rules);
    let mut chains = Chains::of(observed, table);
    let (mut found, mut refusing) = (Vec::new(), Vec::<Simple<'_>>::new());
    for (position, rule) in rules.iter().enumerate() {
        let Some(simple) = Simple::read(rule) else { continue };
        if simple.action == Action::Refuse {
            refusing.push(simple);
            continue;
        }
        if !chains.is_anybody_accepted(&simple) {
            continue;
        }
        let (mut wholly, mut partly) = (BTreeSet::new(), BTreeSet::new());
        for (handle, ends) in of_containers[position + 1..].iter().flatten() {
            if refusing.iter().any(|earlier| earlier.is_about(ends)) {
                continue;
            }
            if chains.let_go(&simple, ends, 0) {
                wholly.insert(handle.clone());
            } else if chains.may_let_go(&simple, ends, &mut BTreeSet::new(), 0) {
                partly.insert(handle.clone());
            }
        }
        for (is_whole, containers) in [(true, wholly), (false, partly)] {
            if !containers.is_empty() {
                found.push(Bypass { table, rule: rule.clone(), is_whole, containers });
                break;
            }
        }
    }
    found
}

/// For each of `rules` that judges what a container sends to the world, or gets from there: whose it is, and
/// about which packets. What containers say to each other is judged by our own rules, in front of all.
fn of_containers(rules: &[String]) -> Vec<Option<(String, Ends)>> {
    let handled = |rule: &String| {
        let chain = rule.rsplit(' ').next()?;
        let handle = OF_CONTAINERS.iter().find_map(|prefix| chain.strip_prefix(prefix))?;
        Some((handle.to_owned(), rule::ends(rule)))
    };
    let all: Vec<_> = rules.iter().map(handled).collect();
    let outside = all.iter().flatten().flat_map(|(_, ends)| ends.outside.clone());
    let overlay: BTreeSet<_> = outside.map(|(_, network)| network).collect();
    let from_overlay: Vec<_> = overlay.into_iter().map(|network| (End::Source, network)).collect();
    let of_the_world = |(handle, mut ends): (String, Ends)| {
        let is_sent = ends.at.iter().any(|(end, _)| *end == End::Source);
        if is_sent && ends.outside.is_empty() {
            return None;
        }
        if !is_sent {
            ends.outside.clone_from(&from_overlay);
        }
        Some((handle, ends))
    };
    all.into_iter().map(|one| one.and_then(of_the_world)).collect()
}

impl Bypass {
    /// What an operator is to know, and to do.
    pub fn told(&self) -> String {
        let Self { table, rule, is_whole, .. } = self;
        let program = if *table == Table::Filter6 { "ip6tables" } else { "iptables" };
        let lets = if *is_whole { "lets packets" } else { "may let some packets" };
        format!(
            "`{rule}` in FORWARD ({table}), a rule of somebody else's, {lets} of {} go before they come to \
             what stands for them there; take it out, or put it behind: {program} -D FORWARD {rule}",
            self.whose()
        )
    }

    fn whose(&self) -> String {
        let first = self.containers.first().map_or("", String::as_str);
        match self.containers.len() {
            1 => format!("container {first}"),
            count => format!("container {first} and {} more", count - 1),
        }
    }
}

fn is_ours(chain: &str) -> bool {
    OURS.iter().chain(&OF_CONTAINERS).any(|prefix| chain.starts_with(prefix))
}

fn forward() -> String {
    Builtin::Forward.to_string()
}

#[cfg(test)]
mod tests;
