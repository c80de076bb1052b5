//! Why a packet passes, or does not: the model's verdict in words, for operators.

mod verdict;

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU16,
    str::FromStr,
};

use netfilter::{Family, judge::Packet};
use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};
use policy::{AppGuid, Protocol};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    allowances::Allowance,
    model::{self, Fate, Why},
    probe::{Met, Probe},
    world::World,
};

pub use verdict::Verdict;

/// The first packet of a connection somebody asks about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flow {
    pub source: End,
    pub destination: End,
    pub protocol: Protocol,
    pub port: NonZeroU16,
}

/// Who sends it, or is to get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Address(IpAddr),
    App(AppGuid),
}

/// The words do not name a flow.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum InvalidFlow {
    #[error("a source and a destination are needed: addresses, or apps")]
    End,
    #[error("{0:?} is no port such as 8080, 8080/tcp or 53/udp")]
    Port(String),
}

/// What becomes of it, as the local listener tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The address it comes from; of an app, that of an instance here.
    pub source: Option<IpAddr>,
    /// The address it is for, likewise.
    pub destination: Option<IpAddr>,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Why, in a sentence.
    pub why: String,
    /// The policy that decided, as `source -> destination protocol ports`.
    pub policy: Option<String>,
    /// The policy that would be needed.
    pub missing: Option<String>,
    /// Apps it is about that this cell has never heard of: no container here is one, and no policy of apps
    /// here names it. Misspelt, perhaps.
    #[serde(default)]
    pub unknown: Vec<String>,
    /// Apps it is about of which no container is known here: it is then about one on another cell. One that
    /// should be here may share its address with another, or be left out of the container store.
    #[serde(default)]
    pub elsewhere: Vec<String>,
    /// The version of the policies this follows from; `None` if the server has not said any.
    pub version: Option<String>,
    /// The mark the packet carries between cells.
    pub mark: u32,
    /// Chains and sets in which the kernel, read just now, does not hold what this follows from.
    pub kernel_differs_in: Vec<String>,
    /// What became of one that was sent, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
}

/// An end as it is found on this cell.
struct Found<'a> {
    app: Option<&'a AppGuid>,
    address: IpAddr,
    place: Place,
    /// Whether the address stands for any of another cell.
    is_made_up: bool,
}

/// Where an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// This cell's own.
    Host,
    /// A container's of this cell, or one of its block.
    Here,
    /// Elsewhere in the overlay.
    OtherCell,
    /// No container's.
    Outside,
}

impl FromStr for End {
    type Err = InvalidFlow;

    fn from_str(text: &str) -> Result<Self, InvalidFlow> {
        match text.parse() {
            Ok(address) => Ok(Self::Address(address)),
            Err(_) => text.parse().map(Self::App).map_err(|_| InvalidFlow::End),
        }
    }
}

impl Flow {
    /// `port` may name the protocol: `53/udp`. TCP is meant otherwise.
    pub fn parse(source: &str, destination: &str, port: &str) -> Result<Self, InvalidFlow> {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let unreadable = || InvalidFlow::Port(port.to_owned());
        Ok(Self {
            source: source.parse()?,
            destination: destination.parse()?,
            protocol: protocol.parse().map_err(|_| unreadable())?,
            port: number.parse().map_err(|_| unreadable())?,
        })
    }
}

/// The addresses of this machine. Where they cannot be had, none is known to be its own.
pub(crate) fn own_addresses() -> BTreeSet<IpAddr> {
    let all = getifaddrs().into_iter().flatten().filter_map(|one| one.address);
    let ip = |address: SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|at| at.ip().into());
        v4.or_else(|| address.as_sockaddr_in6().map(|at| at.ip().into()))
    };
    all.filter_map(ip).collect()
}

/// What the world makes of `flow`, on a host with these addresses.
pub(crate) fn explain(world: &World, host: &BTreeSet<IpAddr>, flow: &Flow) -> Explanation {
    let family = family(flow);
    let [source, destination] =
        [&flow.source, &flow.destination].map(|end| find(world, host, end, family));
    let told = |end: &Found<'_>| end.app.and_then(|app| world.mark_of(app));
    let away = |end: &Found<'_>| {
        let over_the_overlay = end.place == Place::OtherCell && end.address.is_ipv4();
        over_the_overlay.then(|| world.vtep.clone())
    };
    let (from, to) = (source.address, destination.address);
    let mut packet = Packet::new(from, to, flow.protocol, flow.port.get());
    (packet.input, packet.output) = (away(&source), away(&destination));
    // What comes from another cell bears the mark that cell gave it.
    if packet.input.is_some() {
        packet.mark = told(&source).map_or(0, u32::from);
    }
    let judged = model::verdict(world, &packet);
    let by_name = permitting(world, &source, &destination, flow);
    let policy = match &judged.why {
        Why::Policy(allowance) => Some(*allowance),
        Why::MayLeave => by_name,
        _ => None,
    };
    let needed = matches!(judged.why, Why::NoPolicy | Why::Nobody)
        || (judged.why == Why::MayLeave && destination.app.is_some() && by_name.is_none());
    // No policy can be about who is no container, or none of an app.
    let missing = needed
        && [&source, &destination].iter().all(|end| match end.place {
            Place::Here => end.app.is_some(),
            Place::OtherCell => true,
            Place::Host | Place::Outside => false,
        });
    let address = |end: &Found<'_>| (!end.is_made_up).then_some(end.address);
    let explanation = Explanation {
        source: address(&source),
        destination: address(&destination),
        verdict: if needed { Verdict::Refused } else { judged.fate.into() },
        why: verdict::reason(
            &judged.why,
            policy,
            [&source, &destination],
            world.second_network.is_some(),
        ),
        policy: policy.map(ToString::to_string),
        missing: missing.then(|| policy_between(flow, [&source, &destination])),
        unknown: unknown(world, [&source, &destination]),
        elsewhere: on_other_cells([&source, &destination]),
        version: None,
        mark: judged.mark,
        kernel_differs_in: Vec::new(),
        probe: None,
    };
    if family == Family::V6 && world.second_network.is_none() {
        return explanation;
    }
    match verdict::beyond_policies(source.place, &destination) {
        // In shadow mode, say, or where policies are disabled.
        Some(_) if judged.fate == Fate::Accepted => explanation,
        Some((verdict, why)) => {
            Explanation { verdict, why: why.to_owned(), policy: None, missing: None, ..explanation }
        }
        None => explanation,
    }
}

/// The same, unless it is refused because nobody has told of the policies of an app that is here: they may
/// allow it. `told` are the apps the server was asked about.
pub(crate) fn unless_untold(
    explanation: Explanation,
    world: &World,
    flow: &Flow,
    told: Option<&BTreeSet<AppGuid>>,
) -> Explanation {
    let app = |end: &End| match end {
        End::App(app) => Some(app.clone()),
        End::Address(address) => world.app_at(*address).cloned(),
    };
    let is_here = |app: &AppGuid| world.apps().contains(app);
    let untold = |app: &AppGuid| is_here(app) && !told.is_some_and(|told| told.contains(app));
    let untold = [&flow.source, &flow.destination].into_iter().filter_map(app).find(untold);
    match untold.filter(|_| explanation.missing.is_some()) {
        Some(app) => Explanation {
            why: format!(
                "Nothing is known of policies about {app}: the policy server has not answered since its container \
                 came. Until it does, everything is refused that was not known to be allowed."
            ),
            missing: None,
            ..explanation
        },
        None => explanation,
    }
}

/// The policy that would be needed.
fn policy_between(flow: &Flow, ends: [&Found<'_>; 2]) -> String {
    let [from, to] =
        ends.map(|end| end.app.map_or_else(|| end.address.to_string(), ToString::to_string));
    format!("{from} -> {to} {} {}", flow.protocol, flow.port)
}

/// The same where rules of a former run are in force, of which only the kernel knows what they say.
pub(crate) fn of_former_run(world: &World, host: &BTreeSet<IpAddr>, flow: &Flow) -> Explanation {
    Explanation {
        verdict: Verdict::OfFormerRun,
        why: "The policy server has not answered since this agent started, and no answer of it is on disk: \
              until it does, rules of a former run stay in force, whatever they say of it."
            .to_owned(),
        policy: None,
        missing: None,
        unknown: Vec::new(),
        elsewhere: Vec::new(),
        ..explain(world, host, flow)
    }
}

/// What is asked about: IPv6 if an address of it is named.
fn family(flow: &Flow) -> Family {
    let v6 = |end: &End| matches!(end, End::Address(IpAddr::V6(_)));
    if v6(&flow.source) || v6(&flow.destination) { Family::V6 } else { Family::V4 }
}

fn find<'a>(world: &'a World, host: &BTreeSet<IpAddr>, end: &'a End, family: Family) -> Found<'a> {
    let mut ours = world.residents.iter().filter(|resident| Family::of(resident.ip) == family);
    match end {
        End::Address(address) => {
            let app = world.app_at(*address);
            let place = place(world, host, *address);
            Found { app, address: *address, place, is_made_up: false }
        }
        End::App(app) => match ours.find(|resident| resident.app == *app) {
            Some(resident) => Found {
                app: Some(app),
                address: resident.ip,
                place: Place::Here,
                is_made_up: false,
            },
            // Which address it has elsewhere is known there; any of the overlay stands for it. One that runs
            // here may have none of this family.
            None => {
                let is_here = world.residents.iter().any(|resident| resident.app == *app);
                let place = if is_here { Place::Here } else { Place::OtherCell };
                Found { app: Some(app), address: elsewhere(world, family), place, is_made_up: true }
            }
        },
    }
}

fn place(world: &World, host: &BTreeSet<IpAddr>, address: IpAddr) -> Place {
    if host.contains(&address) {
        return Place::Host;
    }
    let (in_block, in_overlay) = match address {
        IpAddr::V4(ip) => (world.subnet.block.contains(&ip), world.subnet.overlay.contains(&ip)),
        IpAddr::V6(ip) => (false, world.second_network.is_some_and(|net| net.contains(&ip))),
    };
    if world.is_container(address) || in_block {
        Place::Here
    } else if in_overlay {
        Place::OtherCell
    } else {
        Place::Outside
    }
}

/// An address containers may have that is not this cell's.
fn elsewhere(world: &World, family: Family) -> IpAddr {
    if family == Family::V6 {
        let network = world.second_network.map(|net| net.network());
        return network.unwrap_or(Ipv6Addr::UNSPECIFIED).into();
    }
    let mut ends = [world.subnet.overlay.network(), world.subnet.overlay.broadcast()].into_iter();
    ends.find(|address| !world.subnet.block.contains(address))
        .unwrap_or(Ipv4Addr::UNSPECIFIED)
        .into()
}

fn unknown(world: &World, ends: [&Found<'_>; 2]) -> Vec<String> {
    let is_unknown = |app: &AppGuid| {
        let is_here = world.residents.iter().any(|resident| resident.app == *app);
        let mut named = world.allowances.from(app).chain(world.allowances.to(app));
        !is_here && named.next().is_none()
    };
    let apps: BTreeSet<_> = ends.into_iter().filter_map(|end| end.app).collect();
    apps.into_iter().filter(|app| is_unknown(app)).map(ToString::to_string).collect()
}

fn on_other_cells(ends: [&Found<'_>; 2]) -> Vec<String> {
    let made_up = ends.into_iter().filter(|end| end.is_made_up && end.place == Place::OtherCell);
    made_up.filter_map(|end| end.app).map(ToString::to_string).collect()
}

/// The policy between the two by their names, wherever they are.
fn permitting<'a>(
    world: &'a World,
    source: &Found<'_>,
    destination: &Found<'_>,
    flow: &Flow,
) -> Option<&'a Allowance> {
    let (source, destination) = source.app.zip(destination.app)?;
    world.allowances.from(source).find(|allowance| {
        allowance.destination == *destination
            && allowance.protocol == flow.protocol
            && allowance.ports.contains(flow.port.get())
    })
}

impl Explanation {
    /// For programs.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("texts and numbers are JSON")
    }

    /// Whether what was tried came out otherwise: it was denied, or not answered, though it passes, or answered
    /// though it does not. What is for others to decide cannot be contradicted.
    pub fn is_contradicted(&self) -> bool {
        let Some(probe) = &self.probe else { return false };
        match self.verdict {
            Verdict::Passes => probe.failed(),
            Verdict::Refused => probe.met == Met::Answer,
            Verdict::NotForPolicies | Verdict::NotForThisCell | Verdict::OfFormerRun => false,
        }
    }

    /// What is to be said of what was tried, if it is not what this says.
    fn contradiction(&self) -> &'static str {
        let denied = self.probe.as_ref().is_some_and(|probe| probe.denied.is_some());
        match (self.is_contradicted(), self.verdict) {
            (false, _) => "",
            (true, Verdict::Passes) if !denied => {
                ". Our rules let it pass, and it got no answer. Nobody listens there, or somebody else's rules refuse it, of \
             which the doctor may know."
            }
            (true, _) => ". That is not what the rules should do.",
        }
    }
}

/// For operators to read.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verdict, why, policy, missing, unknown, version, mark, .. } = self;
        let Self { elsewhere, kernel_differs_in, probe, .. } = self;
        writeln!(f, "It {verdict}. {why}")?;
        if let Some(policy) = policy {
            writeln!(f, "  policy   {policy}")?;
        }
        if let Some(missing) = missing {
            writeln!(f, "  missing  {missing}")?;
        }
        if !unknown.is_empty() {
            let apps = unknown.join(", ");
            writeln!(
                f,
                "  unknown  {apps}: no container here, and no policy about the apps here names it"
            )?;
        }
        for app in elsewhere.iter().filter(|app| !unknown.contains(app)) {
            writeln!(
                f,
                "  about    {app} on another cell: no container of it is known on this one"
            )?;
        }
        writeln!(f, "  mark     {mark:#x}")?;
        writeln!(f, "  version  {}", version.as_deref().unwrap_or("none: the server has none"))?;
        match &kernel_differs_in[..] {
            [] if *verdict == Verdict::OfFormerRun => {
                write!(f, "  kernel   holds rules of a former run")
            }
            [] => write!(f, "  kernel   holds the rules this follows from"),
            differing => write!(f, "  kernel   differs in {}", differing.join(", ")),
        }?;
        match probe {
            Some(probe) => write!(f, "\n  probe    {probe}{}", self.contradiction()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
