//! One pass: look at the cell, decide, make the kernel agree. Blocking, so it runs beside the runtime.

mod others;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use containers::Store;
use ipnet::Ipv6Net;
use netfilter::{
    Drift, Firewall, Interface, KernelError, Observed, Plan, Rendered, Settled, Table,
};
use netfilter_events::conntrack::{Connections, ConntrackError};
use thiserror::Error;
use tokio::sync::watch;

use crate::{
    Config,
    answer::Answer,
    backend::Former,
    bypass::Notice,
    connections::{self, Suspects},
    denied::Accepted,
    desired, drift,
    explain::{self, Explanation, Flow},
    files::{Files, Unknown},
    firewall::{self, Seen, Shared},
    guards::Guards,
    lists::Lists,
    masquerade,
    routers::Routers,
    shadow::{Kind, PromoteError, Promoted, Report, Shadow},
    stale,
    world::{Resident, World},
};

/// Everything a pass reads from and writes to, and what it remembers of earlier passes.
pub(crate) struct Enforcer {
    files: Files,
    second_network: Option<Ipv6Net>,
    vtep: Interface,
    ingress_mark: u32,
    told_accepted: Accepted,
    policies_disabled: bool,
    /// Who needs no policy, if there are such.
    routers: Option<Routers>,
    firewall: Shared,
    former: Former,
    connections: Box<dyn Connections>,
    shadow: Shadow,
    /// What the kernel was last made to agree with.
    settled: Option<Agreed>,
    /// What the last pass saw of the kernel.
    seen: Seen,
    guards: Guards,
    /// How long it took, but for writing and for waiting.
    took: Duration,
    /// What it found wrong with what is the networker's.
    unguarded: Vec<String>,
    bypassed: Vec<Notice>,
    bypassed_in_part: Vec<Notice>,
    /// What was found changed by a pass that failed then, for the next to tell.
    untold: Vec<Drift>,
    /// What the kernel was last said to hold, which is what receipts were given for.
    promised: Option<Arc<Rendered>>,
}

/// A world, and what the kernel holds because of it.
struct Agreed {
    world: World,
    lists: Lists,
    rules: Arc<Rendered>,
}

/// What a pass did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub residents: BTreeSet<Resident>,
    /// Why these are from an earlier reading, if the store cannot be read.
    pub stale: Option<String>,
    /// Whether rules of a former run are in force, nothing being known to put in their place.
    pub of_former_run: bool,
    /// Whether the kernel now holds what the answer and the containers ask for.
    pub enforced: bool,
    /// Rules, and elements of sets, that the kernel holds for us.
    pub rules: usize,
    pub elements: usize,
    /// How many rules each chain of the host had when it was last looked at, whosever they are.
    pub chains: Arc<BTreeMap<(Table, String), usize>>,
    /// Chains and sets that were changed.
    pub touched: BTreeSet<String>,
    /// Whether they were changed although nothing new was wanted: somebody else had changed them.
    pub repaired: bool,
    /// How.
    pub drift: Vec<Drift>,
    pub connections_cut: u64,
    /// What is wrong with what the networker wrote.
    pub unguarded: Vec<String>,
    /// What of somebody else's lets packets go before they come to that.
    pub bypassed: Vec<Notice>,
    /// What of it may let some go.
    pub bypassed_in_part: Vec<Notice>,
    /// How often it was seen to be other than before.
    pub networker_changes: u64,
    /// What is only watched.
    pub shadow: Report,
}

/// Why a pass left the kernel as it was.
#[derive(Debug, Error)]
pub(crate) enum Held {
    #[error(transparent)]
    Unknown(#[from] Unknown),
    #[error("the kernel's rules could not be brought in line")]
    Kernel(#[from] KernelError),
    #[error(
        "the kernel does not hold what was committed, in chains or sets {0:?}; is another program writing them?"
    )]
    Disagrees(BTreeSet<String>, #[source] Option<KernelError>),
    #[error("live connections could not be judged")]
    Connections(#[from] ConntrackError),
}

impl Enforcer {
    pub fn new(
        config: &Config,
        firewall: Shared,
        former: Former,
        connections: Box<dyn Connections>,
        told_accepted: Accepted,
    ) -> Self {
        let store = Store::at(&config.datastore);
        let files = Files::new(store, config.subnet.clone(), config.second_network);
        let (vtep, ingress_mark) = (config.vtep.clone(), config.ingress_mark);
        let shadow = Shadow::open(config.shadow, config.shadow_file());
        Self {
            files,
            second_network: config.second_network,
            vtep,
            ingress_mark,
            told_accepted,
            policies_disabled: config.policies_disabled,
            routers: None,
            firewall,
            former,
            connections,
            shadow,
            settled: None,
            seen: Seen::default(),
            guards: Guards::default(),
            took: Duration::ZERO,
            unguarded: Vec::new(),
            bypassed: Vec::new(),
            bypassed_in_part: Vec::new(),
            untold: Vec::new(),
            promised: None,
        }
    }

    /// Lets routers in the overlay reach what containers serve.
    #[must_use]
    pub fn with_routers(mut self, routers: Option<Routers>) -> Self {
        self.routers = routers;
        self
    }

    /// Makes the kernel enforce `answer` for the containers that are here now. With no answer at all,
    /// a kernel that has rules of ours keeps what is still true of them, and one that has none is shut.
    ///
    /// What the kernel holds is read back if somebody else has written since; if `thorough`, in any
    /// case.
    pub fn pass(&mut self, answer: Option<&Answer>, thorough: bool) -> Result<Outcome, Held> {
        let outcome = self.agree(answer, thorough)?;
        if let Some(agreed) = self.settled.as_ref().filter(|_| answer.is_some()) {
            self.former.give_way(&desired::aside(&agreed.world));
        }
        Ok(outcome)
    }

    fn agree(&mut self, answer: Option<&Answer>, thorough: bool) -> Result<Outcome, Held> {
        let shared = self.firewall.clone();
        let firewall = &mut *shared.lock();
        // Whoever holds a lock makes a pass long, not costly.
        let (began, written) = (Instant::now(), firewall.time_writing());
        let result = self.agree_on(answer, thorough, firewall);
        self.took = began.elapsed().saturating_sub(firewall.time_writing() - written);
        result
    }

    /// How long the last pass took to look and to decide.
    pub fn took(&self) -> Duration {
        self.took
    }

    fn agree_on(
        &mut self,
        answer: Option<&Answer>,
        thorough: bool,
        firewall: &mut Firewall,
    ) -> Result<Outcome, Held> {
        if thorough {
            firewall.forget();
        }
        if let Some(answer) = answer {
            self.shadow.follow(answer);
        }
        let world = self.look(answer, firewall)?;
        if answer.is_none() && stale::is_inhabited(firewall.observed()?) {
            return self.keep_what_is_true(world, firewall);
        }
        let as_we_left_it = firewall::stands(firewall, self.seen)?;
        let stands = as_we_left_it == Some(true);
        if as_we_left_it == Some(false) {
            // What was agreed is not forgotten because the kernel cannot be read now.
            firewall.observed()?;
        }
        // Taken out, so that a pass in which something fails leaves connections to the next.
        let agreed = self.settled.take();
        let unchanged = agreed.as_ref().is_some_and(|agreed| agreed.world == world);
        let agreed = match agreed {
            Some(agreed) if unchanged && stands => {
                return Ok(self.nothing_to_do(agreed, answer, firewall));
            }
            agreed => agreed,
        };
        let before = agreed.as_ref();
        // Where somebody else has written, or nothing is known, anybody may have been let in.
        let suspects = match before.filter(|_| stands && !unchanged) {
            Some(agreed) => connections::suspects(&agreed.world, &world),
            None => Suspects::All,
        };
        let as_seen =
            stands && before.is_some_and(|agreed| world.residents == agreed.world.residents);
        let mut drift = match before.filter(|_| unchanged || !stands) {
            Some(agreed) => drift::found(&agreed.rules, firewall)?,
            None => Vec::new(),
        };
        let dialect = firewall.dialect();
        let addresses = self.files.addresses();
        if answer.is_some()
            && self.files.stale().is_none()
            && let Some(plan) = masquerade::superseded(firewall.observed()?, addresses, dialect)
        {
            firewall.commit(&plan)?;
        }
        if !stands {
            drift.extend(self.expel_strangers(firewall)?);
        }
        let (agreed, plan) = match settle(world, agreed, stands, firewall, &mut drift) {
            Ok(settled) => settled,
            Err(held) => {
                drift::put_off(&mut self.untold, drift);
                return Err(self.doubt(held, firewall));
            }
        };
        drift.splice(0..0, std::mem::take(&mut self.untold));
        // Nobody else has written, and nobody else is here.
        if !as_seen {
            self.look_at_what_others_wrote(firewall);
        }
        // Somebody else may have let in whomever, and put back what was there since.
        let judged = unchanged && plan.is_empty() && as_we_left_it != Some(false);
        let connections_cut = if judged { 0 } else { self.cut_unlawful(&suspects, &agreed)? };
        Ok(Outcome {
            touched: plan.touched(),
            repaired: unchanged && !plan.is_empty() || !drift.is_empty(),
            drift,
            connections_cut,
            ..self.nothing_to_do(agreed, answer, firewall)
        })
    }

    /// What failed may have left the kernel as it was, which is then said to be held, and is not if
    /// somebody else has changed it: a repair that fails leaves nothing to give a receipt for.
    fn doubt(&mut self, held: Held, firewall: &mut Firewall) -> Held {
        let Some(promised) = self.promised.take() else { return held };
        let error = match held {
            Held::Kernel(error) => error,
            held => return held,
        };
        // What cannot be looked at is believed to be as it was.
        let missing = match firewall.observed() {
            Ok(observed) => Plan::new(&promised, observed, &desired::scope()).touched(),
            Err(_) => BTreeSet::new(),
        };
        if missing.is_empty() {
            self.promised = Some(promised);
            return Held::Kernel(error);
        }
        Held::Disagrees(missing, Some(error))
    }

    /// The kernel holds what is wanted.
    fn nothing_to_do(
        &mut self,
        agreed: Agreed,
        answer: Option<&Answer>,
        firewall: &Firewall,
    ) -> Outcome {
        let outcome = Outcome {
            residents: agreed.world.residents.clone(),
            stale: self.files.stale().cloned(),
            enforced: answer.is_some(),
            rules: agreed.rules.rules(),
            elements: agreed.rules.elements(),
            chains: Arc::new(firewall.known().map(lengths).unwrap_or_default()),
            shadow: self.shadow.report(),
            unguarded: self.unguarded.clone(),
            bypassed: self.bypassed.clone(),
            bypassed_in_part: self.bypassed_in_part.clone(),
            networker_changes: self.guards.changes(),
            ..Outcome::default()
        };
        self.promised = answer.is_some().then(|| agreed.rules.clone());
        self.settled = Some(agreed);
        self.seen = firewall::seen(firewall);
        outcome
    }

    /// Whether somebody else has written to the kernel since the last pass, as far as it can tell.
    pub fn has_moved(&mut self) -> bool {
        self.firewall.has_moved_since(self.seen)
    }

    /// What becomes of `flow`, and in which chains and sets the kernel holds something else than that
    /// follows from.
    pub fn explain(&mut self, answer: Option<&Answer>, flow: &Flow) -> Result<Explanation, Held> {
        let shared = self.firewall.clone();
        let firewall = &mut *shared.lock();
        let (world, host) = (self.look(answer, firewall)?, explain::own_addresses());
        firewall.forget();
        if self.holds_those_of_former_run(answer, firewall)? {
            return Ok(explain::of_former_run(&world, &host, flow));
        }
        let rules = Rendered::new(&desired::ruleset(&world), firewall.dialect());
        let difference = Plan::new(&rules, firewall.observed()?, &desired::scope());
        let explained = explain::explain(&world, &host, flow);
        let asked = answer.map(|answer| &answer.apps);
        Ok(Explanation {
            version: answer.and_then(|answer| answer.version.as_ref()).map(ToString::to_string),
            kernel_differs_in: difference.touched().into_iter().collect(),
            ..explain::unless_untold(explained, &world, flow, asked)
        })
    }

    /// The rules that are wanted, as an operator reads them.
    pub fn rules(&mut self, answer: Option<&Answer>) -> Result<String, Held> {
        let shared = self.firewall.clone();
        let firewall = &mut *shared.lock();
        let rules = desired::ruleset(&self.look(answer, firewall)?);
        let mut head = firewall::where_to_look(firewall.dialect()).to_owned();
        if self.holds_those_of_former_run(answer, firewall)? {
            head += "# Rules of a former run are in force, not these, until the policy server answers.\n";
        }
        Ok(format!("{head}{rules}"))
    }

    /// Whether nothing is known to put in place of the rules of a former run.
    fn holds_those_of_former_run(
        &self,
        answer: Option<&Answer>,
        firewall: &mut Firewall,
    ) -> Result<bool, KernelError> {
        let nothing_is_known = answer.is_none() && self.settled.is_none();
        Ok(nothing_is_known && stale::is_inhabited(firewall.observed()?))
    }

    /// The names of what is only watched, if anything is.
    pub fn watched(&self) -> Option<String> {
        self.shadow.watched()
    }

    /// Whether security groups are only watched, for who writes them.
    pub fn watches_groups(&self) -> watch::Receiver<bool> {
        self.shadow.watches_groups()
    }

    /// Has the next pass enforce what was only watched, and returns what that is.
    pub fn promote(&mut self, kinds: &BTreeSet<Kind>) -> Result<Promoted, PromoteError> {
        self.shadow.promote(kinds)
    }

    /// Nothing is known to put in place of the rules of a former life, so those that are true stay.
    fn keep_what_is_true(
        &mut self,
        world: World,
        firewall: &mut Firewall,
    ) -> Result<Outcome, Held> {
        let dialect = firewall.dialect();
        let plans = stale::plans(firewall.observed()?, &world.residents, dialect);
        let mut touched = BTreeSet::new();
        for plan in &plans {
            firewall.commit(plan)?;
            touched.extend(plan.touched());
        }
        let (rules, elements) = stale::held(firewall.observed()?);
        self.seen = firewall::seen(firewall);
        Ok(Outcome {
            residents: world.residents,
            stale: self.files.stale().cloned(),
            // Or of this one, from before it knew of any container.
            of_former_run: self.settled.is_none(),
            rules,
            elements,
            touched,
            ..Outcome::default()
        })
    }

    fn look(&mut self, answer: Option<&Answer>, firewall: &mut Firewall) -> Result<World, Held> {
        // Once containers have been read, it does not matter whom the kernel knows.
        let kernel_knows_some =
            self.settled.is_none() && stale::speaks_of_containers(firewall.observed()?);
        let residents = self.files.residents(kernel_knows_some)?.clone();
        let mut allowances = answer.map(|answer| answer.allowances.clone()).unwrap_or_default();
        if let (Some(routers), Some(_)) = (&mut self.routers, answer) {
            allowances = routers.beside(allowances, self.files.served());
        }
        let subnet = self.files.subnet()?;
        self.files.tell_of_outsiders(&subnet);
        Ok(World {
            subnet,
            second_network: self.second_network,
            unruled: self.files.unruled().clone(),
            vtep: self.vtep.clone(),
            ingress_mark: self.ingress_mark,
            told_accepted: self.told_accepted.rate(),
            policies_disabled: self.policies_disabled,
            residents,
            allowances,
            leniency: self.shadow.leniency(),
        })
    }

    fn cut_unlawful(
        &mut self,
        suspects: &Suspects,
        Agreed { world, lists, .. }: &Agreed,
    ) -> Result<u64, ConntrackError> {
        let live = match suspects {
            Suspects::Picked(picks) => self.connections.pick(picks)?,
            Suspects::All => self.connections.list()?,
        };
        let unlawful = connections::unlawful(&live, world, lists);
        let forgotten = self.connections.forget(&unlawful)?;
        // No policy speaks of these, so none that is taken away makes a difference.
        if matches!(suspects, Suspects::Picked(_)) {
            return Ok(forgotten);
        }
        let portless = connections::unlawful_portless(world);
        Ok(forgotten + self.connections.forget_portless(&portless)?)
    }
}

/// Makes the kernel agree with `world`, from what it agreed with before if that is known, and `stands`. What
/// somebody else changes meanwhile is added to what was `found` changed.
fn settle(
    world: World,
    before: Option<Agreed>,
    stands: bool,
    firewall: &mut Firewall,
    found: &mut Vec<Drift>,
) -> Result<(Agreed, Plan), Held> {
    let (mut lists, before) = match before {
        Some(Agreed { lists, rules, world: _ }) => (lists, Some(rules)),
        None => (Lists::default(), None),
    };
    lists.follow(&world);
    let wanted = desired::with_lists(&world, &lists);
    let rules = match &before {
        Some(before) => before.then(&wanted),
        None => Rendered::new(&wanted, firewall.dialect()),
    };
    let scope = desired::scope();
    let Settled { plan, left, moved: _ } = match before.filter(|_| stands) {
        Some(before) => firewall.settle_from(&before, &rules, &scope)?,
        None => firewall.settle_rendered(&rules, &scope)?,
    };
    // A receipt speaks of what the kernel holds, not of what it was told.
    if !left.is_empty() {
        found.extend(drift::found(&rules, firewall)?);
        return Err(Held::Disagrees(left, None));
    }
    Ok((Agreed { world, lists, rules: Arc::new(rules) }, plan))
}

fn lengths(observed: &Observed) -> BTreeMap<(Table, String), usize> {
    let length = |table, chain: &str| observed.rules(table, chain).map_or(0, <[String]>::len);
    let of = |table| {
        let chains = observed.chains(table);
        chains.map(move |chain| ((table, chain.to_owned()), length(table, chain)))
    };
    Table::ALL.into_iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests;
