//! What the kernel should hold of security groups, as a pure function of the containers, the server's
//! answer, and what is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use containers::{Container, Contents};
use ipnet::{IpNet, Ipv6Net};
use netfilter::{
    Action, ChainName, Dialect, Observed, Place, Rule, Ruleset, Scope, Table,
    egress::{self, Manner, Sender, WaysOut, Workload, shared},
};

use super::{
    answer::{Answer, Class, Shared},
    status::Standing,
};
use crate::{
    denied::{self, Reason},
    world,
};

/// Chains of security groups begin with one of these: ours and the Go agent's, and what the Go agent
/// leaves behind when it dies in the middle of a change.
const PREFIXES: [&str; 2] = ["asg-", "casg-"];

/// What should be, and what it is about.
pub(crate) struct Wanted {
    pub rules: Ruleset,
    /// Nothing beyond this is touched.
    pub scope: Scope,
    pub standings: BTreeMap<String, Standing>,
    /// The containers whose groups the rules are.
    pub governed: Vec<Governed>,
}

/// What one container may send out of the overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Governed {
    pub ip: Ipv4Addr,
    /// Its second address, of IPv6, if it has one.
    pub second: Option<Ipv6Addr>,
    /// What lets it send something, shared with all others it is said of.
    pub groups: Vec<Arc<Shared>>,
    pub denied: Vec<IpNet>,
    /// Whether the rest passes, and is only told of.
    pub watched: bool,
}

/// What may be removed besides what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sweep<'a> {
    /// Nothing: it is not known yet who lives here, or with what.
    None,
    /// What is left of these containers, should they be gone.
    Only(&'a BTreeSet<String>),
    /// Every chain of no living container.
    All,
}

/// What holds for all containers of a cell.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub manner: Manner,
    /// Where containers have second addresses, if they have any.
    pub second_network: Option<Ipv6Net>,
    /// The words rules are written in.
    pub dialect: Dialect,
}

/// What the kernel should hold for the containers of a store. If it `watches`, what no group allows passes
/// and is told of.
pub(crate) fn wanted(
    store: &Contents,
    answer: Option<&Answer>,
    cell: &Cell,
    watches: bool,
    observed: &Observed,
    sweep: Sweep<'_>,
) -> Wanted {
    let manner = &cell.manner;
    let (mut rules, mut standings, mut governed) = (Ruleset::new(), BTreeMap::new(), Vec::new());
    // Chains of the living: never swept, and each the chain of one. Whose entry cannot be read, may live.
    let mut chains: BTreeSet<ChainName> =
        store.faults.iter().flat_map(|fault| chains_of(&fault.handle)).collect();
    for container in &store.containers {
        let chain = egress::groups_chain(&container.handle);
        let is_its_own = chains.insert(chain.clone());
        chains.extend(egress::owned(&chain));
        let standing = if is_its_own {
            let second = cell.second_address(container);
            match lot(container, answer, observed, &cell.tables(second)) {
                Ok((parent, groups)) => {
                    let workload = Workload::called(container.workload());
                    let denied = manner.deny.of(workload);
                    let ip = container.ip;
                    let one = Governed { ip, second, groups, denied, watched: watches };
                    let jump = cell.lead_to(&chain, &one);
                    rules.hook(Table::Filter, parent, Place::First, jump);
                    let sender = Sender { handle: &container.handle, workload, allowed: &[] };
                    manner.govern(&mut rules, chain, &sender, &one.ways_out());
                    governed.push(one);
                    Standing::Enforced
                }
                Err(standing) => standing,
            }
        } else {
            Standing::Unplaced(format!("another container has its chain {chain}"))
        };
        standings.insert(container.handle.clone(), standing);
    }
    let groups: BTreeMap<_, _> = governed
        .iter()
        .flat_map(|one| &one.groups)
        .map(|group| (&group.chain, &group.permissions))
        .collect();
    groups.into_iter().for_each(|(chain, allowed)| shared::add(&mut rules, chain, allowed, manner));
    let scope = scope_of(&chains, &standings, observed, sweep);
    Wanted { rules, scope, standings, governed }
}

/// The chain a container's groups are put in front of, and the groups; else why it keeps what it has.
fn lot(
    container: &Container,
    answer: Option<&Answer>,
    observed: &Observed,
    tables: &[Table],
) -> Result<(ChainName, Vec<Arc<Shared>>), Standing> {
    let class = Class::of(container);
    // Without a space, and for what is no app, no group holds, whatever the server says.
    let groups = match container.space_id().filter(|_| class != Class::Other) {
        None => Vec::new(),
        Some(space) => {
            let answer = answer.filter(|answer| answer.spaces.contains(space));
            let groups = answer.ok_or(Standing::Unknown)?.groups_for(space, class);
            groups.map_err(|error| Standing::Kept(error.to_string()))?
        }
    };
    match parent(&container.handle, observed, tables) {
        Some(parent) => Ok((parent, groups)),
        None => Err(Standing::Unplaced(format!(
            "it has no chain {}",
            egress::netout_chain(&container.handle)
        ))),
    }
}

/// The chain of what leaves a container, as our networker names it, or the CNI wrapper, which cuts. It must
/// be in all of `tables`.
fn parent(handle: &str, observed: &Observed, tables: &[Table]) -> Option<ChainName> {
    let there = |chain: &ChainName| {
        tables.iter().all(|table| observed.rules(*table, chain.as_str()).is_some())
    };
    let cut: String = format!("netout--{handle}").chars().take(28).collect();
    let cut = cut.parse().ok().filter(there);
    Some(egress::netout_chain(handle)).filter(there).or(cut)
}

/// What there may be of a container's groups.
fn chains_of(handle: &str) -> [ChainName; 4] {
    egress::owned(&egress::groups_chain(handle))
}

/// Everything of security groups, whosever: ours and the Go agent's.
pub(crate) fn scope() -> Scope {
    Scope::prefixes(PREFIXES)
}

/// The chains of those whose groups are known and of those that may be swept, and what is shared, unless
/// a chain that stays as it is leads there.
fn scope_of(
    living: &BTreeSet<ChainName>,
    standings: &BTreeMap<String, Standing>,
    observed: &Observed,
    sweep: Sweep<'_>,
) -> Scope {
    let enforced = standings.iter().filter(|(_, standing)| **standing == Standing::Enforced);
    let mut ours: BTreeSet<ChainName> =
        enforced.flat_map(|(handle, _)| chains_of(handle)).collect();
    let of_groups = |chain: &&str| PREFIXES.iter().any(|prefix| chain.starts_with(prefix));
    let there = || {
        // A set that counts has a second part, for IPv6.
        let sets = observed.sets().map(|set| set.strip_suffix("-6").unwrap_or(set));
        let all = observed.chains(Table::Filter).chain(sets).filter(of_groups);
        all.filter(|name| shared::owner(name).is_none())
    };
    match sweep {
        Sweep::None => {}
        Sweep::Only(gone) => ours.extend(
            gone.iter().flat_map(|handle| chains_of(handle)).filter(|c| !living.contains(c)),
        ),
        Sweep::All => {
            ours.extend(there().filter_map(|c| c.parse().ok()).filter(|c| !living.contains(c)));
        }
    }
    let staying = there().filter(|chain| !ours.contains(*chain)).collect();
    ours.extend(shared::in_kernel_besides(observed, staying));
    Scope::named(ours)
}

impl Cell {
    fn second_address(&self, container: &Container) -> Option<Ipv6Addr> {
        self.second_network.and_then(|network| world::second_address(container, network))
    }

    /// Where a container with these addresses has its chains.
    fn tables(&self, second: Option<Ipv6Addr>) -> Vec<Table> {
        let mut tables = self.dialect.tables(Table::Filter);
        if second.is_none() {
            tables.truncate(1);
        }
        tables
    }

    /// The way to a container's groups. The networker has written nothing of IPv6 for one that has only one
    /// address, so nothing of that can be led there.
    fn lead_to(&self, chain: &ChainName, one: &Governed) -> Rule {
        let jump = Rule::new(Action::Jump(chain.clone()));
        let apart = self.dialect.tables(Table::Filter).len() > 1;
        if apart && one.second.is_none() { jump.from(one.ip) } else { jump }
    }
}

impl Governed {
    /// Where what is neither stray nor denied goes.
    fn ways_out(&self) -> WaysOut {
        let groups = self.groups.iter().map(|group| Rule::new(Action::Jump(group.chain.clone())));
        let watched = || vec![denied::tell(Reason::WatchedNoGroup), Rule::new(Action::Accept)];
        WaysOut { first: None, shared: groups.collect(), rest: self.watched.then(watched) }
    }
}

#[cfg(test)]
pub(crate) mod tests;
