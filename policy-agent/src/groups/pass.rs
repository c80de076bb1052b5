//! One pass over security groups: look, decide, make the kernel agree. Blocking, so it runs beside the
//! runtime.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use containers::{Container, Contents, Reading, Store, StoreError};
use ipnet::Ipv4Net;
use netfilter::{
    ChainName, Drift, Firewall, KernelError, Observed, Rendered, Settled, Table,
    egress::{groups_chain, netout_chain, owned, shared},
};
use netfilter_events::conntrack::{Connections, ConntrackError};
use service::log::chain;
use thiserror::Error;

use super::{
    answer::Answer,
    connections::{self, Networks},
    desired::{self, Cell, Governed, Sweep, Wanted},
    status::Standing,
};
use crate::{
    Config,
    backend::Former,
    drift,
    firewall::{self, Seen, Shared},
    subnet::{self, SubnetError},
};

/// Everything a pass reads from and writes to, and what it remembers of earlier passes.
pub(crate) struct Enforcer {
    store: Store,
    subnet: subnet::Source,
    /// The last good reading of it.
    overlay: Option<Ipv4Net>,
    cell: Cell,
    firewall: Shared,
    former: Former,
    connections: Box<dyn Connections>,
    /// Whether it was told already that groups speak of what nobody here has.
    has_told_of_ipv6: bool,
    /// The last good reading of the store.
    containers: Option<(Contents, Reading)>,
    /// What the kernel was last made to agree with.
    settled: Option<Vec<Governed>>,
    /// What was found changed by a pass that failed then, for the next to tell.
    untold: Vec<Drift>,
    /// What the last pass saw of the kernel.
    seen: Seen,
}

/// What a pass starts from, besides the files.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub answer: Option<Answer>,
    /// Whether the answer was given by a server in this life of the agent.
    pub fresh: bool,
    /// Containers that are said to be gone.
    pub gone: BTreeSet<String>,
    /// Whether what no group allows is only watched.
    pub watches: bool,
}

/// What a pass did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub spaces: BTreeSet<String>,
    pub standings: BTreeMap<String, Standing>,
    /// Names of groups, by the chain of each.
    pub groups: BTreeMap<String, String>,
    pub rules: usize,
    /// Chains that were changed.
    pub touched: BTreeSet<String>,
    /// Whether they were changed although nothing new was wanted: somebody else had changed them.
    pub repaired: bool,
    /// How.
    pub drift: Vec<Drift>,
    pub connections_cut: u64,
    /// Whether the kernel enforces the groups of all who live here, as they were told.
    pub enforces: bool,
}

/// Why a pass left the kernel as it was.
#[derive(Debug, Error)]
pub(crate) enum Held {
    #[error("the cell's overlay is not known")]
    Overlay(#[from] SubnetError),
    #[error("the containers of this cell are not known")]
    Containers(#[from] StoreError),
    #[error("container store {0} is gone, while the kernel has rules for containers")]
    StoreGone(PathBuf),
    #[error("the kernel's rules could not be brought in line")]
    Kernel(#[from] KernelError),
    #[error(
        "the kernel does not hold what was committed, in chains {0:?}; is another program writing them?"
    )]
    Disagrees(BTreeSet<String>),
    #[error("live connections could not be judged")]
    Connections(#[from] ConntrackError),
}

impl Enforcer {
    pub fn new(
        config: &Config,
        firewall: Shared,
        former: Former,
        connections: Box<dyn Connections>,
    ) -> Self {
        let (manner, second_network) = (config.egress.clone(), config.second_network);
        let cell = Cell { manner, second_network, dialect: firewall.lock().dialect() };
        Self {
            store: Store::at(&config.datastore),
            subnet: config.subnet.clone(),
            overlay: None,
            cell,
            has_told_of_ipv6: false,
            firewall,
            former,
            connections,
            containers: None,
            settled: None,
            untold: Vec::new(),
            seen: Seen::default(),
        }
    }

    /// Makes the kernel enforce what is known for the containers that are here now. What is of no
    /// container any more is swept once a server has told of all that are here.
    ///
    /// The networker writes at its own times: what it made or removed since we looked is another world,
    /// and worth another look.
    pub fn pass(&mut self, known: &Known) -> Result<Outcome, Held> {
        let shared = self.firewall.clone();
        let firewall = &mut *shared.lock();
        let outcome = match self.attempt(known, firewall) {
            Err(Held::Kernel(error)) if error.is_locked_out() => Err(Held::Kernel(error)),
            Err(Held::Kernel(_) | Held::Disagrees(_)) => {
                // Who got in meanwhile is to be judged, too.
                self.settled = None;
                self.attempt(known, firewall)
            }
            result => result,
        }?;
        self.seen = firewall::seen(firewall);
        Ok(outcome)
    }

    /// Takes note of what the server says, before a pass acts on it.
    pub fn hear(&mut self, answer: &Answer) {
        let is_dual = self.cell.second_network.is_some();
        if !is_dual && !self.has_told_of_ipv6 && answer.speaks_of_ipv6() {
            tracing::info!(
                "Security groups speak of IPv6, which containers here do not have: dual_stack is off. The rest of them is enforced."
            );
            self.has_told_of_ipv6 = true;
        }
    }

    /// The kernel, and what the last pass saw of it.
    pub fn last_look(&self) -> (Shared, Seen) {
        (self.firewall.clone(), self.seen)
    }

    fn attempt(&mut self, known: &Known, firewall: &mut Firewall) -> Result<Outcome, Held> {
        let Known { answer, fresh, gone, watches } = known;
        let overlay = self.overlay()?;
        let observed = firewall.observed()?;
        let stale = look(&self.store, &mut self.containers, observed)?;
        let (containers, _) = self.containers.as_ref().expect("were read now or before");
        let spaces = spaces(&containers.containers);
        let complete = answer.as_ref().is_some_and(|answer| answer.spaces.is_superset(&spaces));
        let sweep = match (stale, *fresh && complete) {
            (true, _) => Sweep::None,
            (false, true) => Sweep::All,
            (false, false) => Sweep::Only(gone),
        };
        let Wanted { rules, scope, standings, governed } =
            desired::wanted(containers, answer.as_ref(), &self.cell, *watches, observed, sweep);
        // Taken out, so that a pass in which connections cannot be judged leaves that to the next.
        let unchanged = self.settled.take().as_ref() == Some(&governed);
        let (count, rules) = (rules.len(), Rendered::new(&rules, firewall.dialect()));
        // What nobody else has written to is as it was left.
        let as_we_left_it = firewall::stands(firewall, self.seen)?;
        let stands = as_we_left_it == Some(true);
        let mut drift = match unchanged && !stands {
            true => Drift::between(&rules, firewall.observed()?, &scope),
            false => Vec::new(),
        };
        let settled = firewall.settle_rendered(&rules, &scope);
        let Settled { plan, left, moved: _ } = match settled {
            Ok(settled) => settled,
            Err(error) => {
                drift::put_off(&mut self.untold, drift);
                return Err(error.into());
            }
        };
        if !left.is_empty() {
            drift.extend(Drift::between(&rules, firewall.observed()?, &scope));
            drift::put_off(&mut self.untold, drift);
            return Err(Held::Disagrees(left));
        }
        drift.splice(0..0, std::mem::take(&mut self.untold));

        // Somebody else may have let out whomever, and put back what was there since.
        let judged = plan.is_empty() && unchanged && as_we_left_it != Some(false);
        let connections_cut = if judged { 0 } else { self.cut_unlawful(&governed, overlay)? };
        self.settled = Some(governed);
        // What stands in the other firewall holds for whoever has nothing here yet.
        if sweep == Sweep::All && standings.values().all(|s| *s == Standing::Enforced) {
            self.former.sweep();
        }
        let touched = plan.touched();
        // What has been swept of others was nobody's change.
        let wanted = wanted_chains(&standings, self.settled.as_deref().unwrap_or_default());
        let of_living = |name: &str| wanted.contains(shared::owner(name).unwrap_or(name));
        drift.retain(|change| of_living(&change.chain));
        let changed_back = unchanged && touched.iter().any(|name| of_living(name));
        let repaired = changed_back || !drift.is_empty();
        let groups = named(self.settled.as_deref().unwrap_or_default());
        let claim = complete && standings.values().all(|s| *s == Standing::Enforced);
        let enforces = claim && !watches && !stale;
        Ok(Outcome {
            spaces,
            standings,
            groups,
            rules: count,
            touched,
            repaired,
            drift,
            connections_cut,
            enforces,
        })
    }

    /// The overlay network, as it was when that could be read last.
    fn overlay(&mut self) -> Result<Ipv4Net, Held> {
        match (self.subnet.read(), self.overlay) {
            (Ok(subnet), _) => self.overlay = Some(subnet.overlay),
            (Err(_), Some(_)) => {}
            (Err(error), None) => return Err(error.into()),
        }
        Ok(self.overlay.expect("was read now or before"))
    }

    fn cut_unlawful(
        &mut self,
        governed: &[Governed],
        overlay: Ipv4Net,
    ) -> Result<u64, ConntrackError> {
        if governed.is_empty() {
            return Ok(0);
        }
        let networks = Networks { overlay, second: self.cell.second_network };
        let unlawful = connections::unlawful(&self.connections.list()?, governed, networks);
        let portless = connections::unlawful_portless(governed, networks);
        Ok(self.connections.forget(&unlawful)? + self.connections.forget_portless(&portless)?)
    }
}

/// Reads the store; where it says nothing usable, what is `known` of it holds. Says whether that is so.
///
/// Whoever removes the last container leaves an empty list, not an empty file: a blank store after
/// containers was lost, or is being written by someone who truncates first.
fn look(
    store: &Store,
    known: &mut Option<(Contents, Reading)>,
    observed: &Observed,
) -> Result<bool, Held> {
    let read = match known {
        Some((_, reading)) => store.read_unless(reading),
        None => store.read_unless(&Reading::default()),
    };
    let knew_some = match known {
        Some((known, _)) => !known.containers.is_empty(),
        None => observed.chains(Table::Filter).any(|chain| chain.starts_with("asg-")),
    };
    match read {
        Ok(Some((_, reading))) if reading.is_blank() && knew_some => match known {
            Some(_) => Ok(true),
            None => Err(Held::StoreGone(store.path().to_owned())),
        },
        Ok(read) => {
            *known = read.or(known.take());
            Ok(false)
        }
        Err(error) if known.is_some() => {
            let error = chain(&error);
            // Told by who looks at policies, once.
            tracing::debug!(error, "The container store is unreadable; its last content holds.");
            Ok(true)
        }
        Err(error) => Err(error.into()),
    }
}

/// The spaces of these containers.
fn spaces(containers: &[Container]) -> BTreeSet<String> {
    containers.iter().filter_map(Container::space_id).map(str::to_owned).collect()
}

fn named(governed: &[Governed]) -> BTreeMap<String, String> {
    let groups = governed.iter().flat_map(|one| &one.groups);
    groups.map(|group| (group.chain.to_string(), group.name.clone())).collect()
}

/// The chains that stand for somebody who lives.
fn wanted_chains(
    standings: &BTreeMap<String, Standing>,
    governed: &[Governed],
) -> BTreeSet<ChainName> {
    let of_one = standings
        .keys()
        .flat_map(|handle| owned(&groups_chain(handle)).into_iter().chain([netout_chain(handle)]));
    let of_all = governed.iter().flat_map(|one| &one.groups).map(|group| group.chain.clone());
    of_one.chain(of_all).collect()
}

#[cfg(test)]
mod tests;
