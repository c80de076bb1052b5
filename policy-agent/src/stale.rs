//! What of a former life's rules must change even while nothing is known to put in their place: what is
//! said about an address must be about the app that has it now, or the next container there would be
//! taken for the one before (spec/cell.md §I.23); and the way into the rules must stand.
//!
//! Whose an address was is told by the door it leads to, which is called after the app.
//!
//! The Go agents' rules (spec/cell.md §D.3, §D.5) are a former life's, too: they stand until there is
//! something to put in their place, and what they say of an address is told by a comment.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use imbl::OrdSet;
use netfilter::{
    ChainName, Dialect, Element, Observed, Plan, Rendered, Ruleset, Scope, Side, Step, Table,
};

use crate::{
    desired::{self, DOORS, door, doors, entrance, tags},
    world::Resident,
};

/// Whether the kernel holds rules of a former life.
pub(crate) fn is_inhabited(observed: &Observed) -> bool {
    has_entrance(observed) || predecessors(observed).next().is_some()
}

fn has_entrance(observed: &Observed) -> bool {
    observed.rules(Table::Filter, entrance().as_str()).is_some()
}

/// The Go agents number their chains by the time they were made.
fn predecessors(observed: &Observed) -> impl Iterator<Item = &str> {
    let numbered = |chain: &&str| {
        let number = chain.strip_prefix("vpa--").map(|rest| {
            let rest = rest.strip_prefix("remote-").or(rest.strip_prefix("local-")).unwrap_or(rest);
            (10..=16).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_digit())
        });
        number == Some(true)
    };
    observed.chains(Table::Filter).filter(numbered)
}

/// Of what they say of addresses, what is about an app that does not have the address now.
fn untrue_of_predecessors(
    observed: &Observed,
    residents: &BTreeSet<Resident>,
) -> impl Iterator<Item = Step> {
    let apps: BTreeMap<IpAddr, _> =
        residents.iter().map(|one| (one.ip, one.app.as_str())).collect();
    let is_true = move |rule: &str| {
        let (word, side) = if rule.starts_with("-s ") { ("src:", "-s ") } else { ("dst:", "-d ") };
        let address = rule.strip_prefix(side).and_then(|rest| rest.split_once("/32 "));
        let Some(address) = address.and_then(|(address, _)| address.parse().ok()) else {
            return true;
        };
        // What has no comment, such as what is only told, is about whoever has the address.
        let said = rule.split_once(word).map(|(_, rest)| rest.split([' ', '_', '"']).next());
        let Some(app) = apps.get(&address) else { return false };
        said.is_none_or(|said| said == Some(*app))
    };
    predecessors(observed).flat_map(move |chain| {
        let rules = observed.rules(Table::Filter, chain).unwrap_or_default();
        let untrue: Vec<_> = rules.iter().filter(|rule| !is_true(rule)).collect();
        let delete = |rule: &String| Step::Delete(chain.to_owned(), rule.clone());
        untrue.into_iter().map(delete).collect::<Vec<_>>()
    })
}

/// Whether rules of ours in the kernel are about any container.
pub(crate) fn speaks_of_containers(observed: &Observed) -> bool {
    observed.chains(Table::Filter).any(|chain| chain.starts_with(DOORS))
}

/// How many rules, and elements of sets, rules of a former life are, those of the Go agents included.
pub(crate) fn held(observed: &Observed) -> (usize, usize) {
    const OURS: &str = "vpa--";
    let chains = Table::ALL.into_iter().flat_map(|table| {
        let chains = observed.chains(table).filter(|chain| chain.starts_with(OURS));
        chains.filter_map(move |chain| observed.rules(table, chain))
    });
    let is_ours = |set: &&str| set.rsplit('/').next().is_some_and(|name| name.starts_with(OURS));
    let sets = observed.sets().filter(is_ours).filter_map(|set| observed.elements(set));
    (chains.map(<[String]>::len).sum(), sets.map(OrdSet::len).sum())
}

/// What must go, and what must come back: to be carried out one after the other.
pub(crate) fn plans(
    observed: &Observed,
    residents: &BTreeSet<Resident>,
    dialect: Dialect,
) -> Vec<Plan> {
    let mut plans = match dialect {
        Dialect::Nft => vec![untrue_elements(observed, residents, dialect)],
        _ => untrue_rules(observed, residents, dialect),
    };
    let mut way_in = Ruleset::new();
    if has_entrance(observed) {
        desired::hook(&mut way_in);
    }
    // Nothing is in its scope but what is wanted, so it takes nothing away.
    plans.push(Plan::new(&Rendered::new(&way_in, dialect), observed, &Scope::named([])));
    plans
}

/// Whose doors the addresses must lead to.
fn doors_of(residents: &BTreeSet<Resident>) -> BTreeMap<IpAddr, ChainName> {
    residents.iter().map(|resident| (resident.ip, door(&resident.app))).collect()
}

/// With nftables, what is said of addresses are elements of two maps of each family.
fn untrue_elements(observed: &Observed, residents: &BTreeSet<Resident>, dialect: Dialect) -> Plan {
    let wanted = doors_of(residents);
    let (doors, tags) = (format!("{}/{}", Table::Filter, doors()), tags().to_string());
    let plan = untrue_elements_of(&doors, &tags, observed, &wanted, Plan::nothing(dialect));
    let [doors, tags] = [doors, tags].map(|map| format!("{map}-6"));
    untrue_elements_of(&doors, &tags, observed, &wanted, plan)
}

fn untrue_elements_of(
    map: &str,
    tags: &str,
    observed: &Observed,
    wanted: &BTreeMap<IpAddr, ChainName>,
    plan: Plan,
) -> Plan {
    let none = OrdSet::new();
    let led = observed.elements(map).unwrap_or(&none);
    let lawful = |element: &&Element| match element {
        Element::Door(address, chain) => {
            let chain = chain.split_once('/').map_or(chain.as_str(), |(_, chain)| chain);
            wanted.get(address).is_some_and(|door| door.as_str() == chain)
        }
        _ => false,
    };
    let (known, astray): (Vec<_>, Vec<_>) = led.iter().partition(lawful);
    let known: BTreeSet<_> = known.iter().map(|element| address_of(element)).collect();
    let marked = observed.elements(tags).unwrap_or(&none);
    let mismarked = marked.iter().filter(|element| !known.contains(&address_of(element)));
    let [astray, mismarked] =
        [astray.into_iter().cloned().collect(), mismarked.cloned().collect::<Vec<_>>()];
    plan.without(map, astray).without(tags, mismarked)
}

fn address_of(element: &Element) -> Option<IpAddr> {
    match element {
        Element::Door(address, _) | Element::Tag(address, _) => Some(*address),
        _ => None,
    }
}

/// With iptables they are rules in the leaves of two trees, of each family that is written.
fn untrue_rules(
    observed: &Observed,
    residents: &BTreeSet<Resident>,
    dialect: Dialect,
) -> Vec<Plan> {
    let wanted = doors_of(residents);
    let of_table = |table| {
        let led = leaves(observed, table, &doors(), Side::Destination);
        let lawful = |leaf: &&Leaf<'_>| {
            let door = wanted.get(&leaf.address);
            door.is_some_and(|door| leaf.action.strip_prefix("-g ") == Some(door.as_str()))
        };
        let (known, astray): (Vec<_>, Vec<_>) = led.iter().partition(lawful);
        let known: BTreeSet<_> = known.iter().map(|leaf| leaf.address).collect();
        let marked = leaves(observed, table, &tags(), Side::Source);
        let mismarked = marked.iter().filter(|leaf| !known.contains(&leaf.address));
        let delete = |leaf: &Leaf<'_>| Step::Delete(leaf.chain.to_owned(), leaf.rule.to_owned());
        let mut steps: Vec<_> = astray.into_iter().chain(mismarked).map(delete).collect();
        if table == Table::Filter {
            steps.extend(untrue_of_predecessors(observed, residents));
        }
        Plan::of(dialect, table, steps)
    };
    dialect.tables(Table::Filter).into_iter().map(of_table).collect()
}

/// A rule about one address.
struct Leaf<'a> {
    chain: &'a str,
    rule: &'a str,
    address: IpAddr,
    action: &'a str,
}

/// All of those in the tree of a map.
fn leaves<'a>(observed: &'a Observed, table: Table, map: &ChainName, side: Side) -> Vec<Leaf<'a>> {
    let root = format!("{map}.{side}");
    let flag = match side {
        Side::Source => "-s ",
        Side::Destination => "-d ",
    };
    let chains = observed.chains(table).filter(|chain| chain.starts_with(&root));
    let rules = chains.flat_map(|chain| {
        let rules = observed.rules(table, chain).unwrap_or_default();
        rules.iter().map(move |rule| (chain, rule.as_str()))
    });
    let leaf = |(chain, rule): (&'a str, &'a str)| {
        let (net, action) = rule.strip_prefix(flag)?.split_once(' ')?;
        let (address, length) = net.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let whole = if address.is_ipv4() { "32" } else { "128" };
        (length == whole).then_some(Leaf { chain, rule, address, action })
    };
    rules.filter_map(leaf).collect()
}
