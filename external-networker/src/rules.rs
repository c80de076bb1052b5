//! What the firewall says about one container: a pure function of the cell and the container.
//!
//! ```text
//!  to this host      INPUT    -s ip                 → input--    established, DNS, host services; refuse
//!  to the world      FORWARD  -s ip ! -d overlay    → netout--   (security groups, if the policy agent
//!                                                                keeps them;) established, rules; refuse
//!  to containers     FORWARD  -s ip   -d overlay    → overlay--  established, marked through the VTEP; refuse
//!  from anywhere     FORWARD  -d ip                 → overlay--  established, marked at a mapped port; refuse
//!  mapped ports      PREROUTING (nat, mangle)       → netin--    new destination; mark of the ingress
//!  forged sources    PREROUTING (mangle)            → netin--    dropped
//! ```
//!
//! A container with a second address, of IPv6, has the same chains for it ([`second`]).
//!
//! What policies allow never gets this far: the policy agent's chain stands in front and has the
//! first word. A packet to the overlay that it did not accept or mark is refused here already, on the
//! sender's cell, and a rule that allows the whole world does not allow the overlay.

mod second;

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;
use netfilter::{
    Action, Builtin, ChainName, ConnectionState, Interface, Mark, Observed, Place, Rule, Ruleset,
    Table,
    egress::{self, Manner, Sender, WaysOut, Workload},
};
use policy::{EgressRule, PortRange, Protocol};

use crate::handle::{Chains, Handle};

pub(crate) use second::Second;

/// What all containers of this cell have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    /// Where containers live.
    pub overlay: Ipv4Net,
    /// The device that leads to those of other cells.
    pub vtep: Interface,
    /// The address mapped ports are on.
    pub address: Ipv4Addr,
    /// The interfaces through which the world comes to mapped ports.
    pub underlay: Vec<Interface>,
    /// The mark of what came in there.
    pub ingress_mark: u32,
    /// Resolvers told to containers.
    pub dns_servers: Vec<IpAddr>,
    /// What containers may reach on hosts.
    pub host_services: Vec<(Protocol, SocketAddrV4)>,
    /// What holds for what they send out of the overlay.
    pub manner: Manner,
    /// Whether what is refused to them from inside the overlay is told.
    pub tell_of_overlay: bool,
    /// Where packets of containers arrive under their own address, not the cell's.
    pub unmasqueraded: Option<Ipv4Net>,
}

/// What is known of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub handle: Handle,
    pub ip: Ipv4Addr,
    /// Its address of IPv6, if it has one.
    pub second: Option<Second>,
    /// The host's ends of its links.
    pub links: Vec<Interface>,
    pub mapped: Vec<Mapped>,
    /// What runs in it.
    pub workload: Workload,
    pub egress: Vec<EgressRule>,
    /// Whether the policy agent keeps its security groups; `egress` has no say then.
    pub governed: Governed,
}

/// Of which of a container's addresses the policy agent keeps its security groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Governed {
    /// Of none.
    No,
    /// Of its first one, and where IPv6 has tables of its own, of no other.
    First,
    /// Of all.
    Yes,
}

impl Facts {
    /// Whether the policy agent's security groups stand in front of all of its addresses.
    pub fn is_linked(&self) -> bool {
        match self.governed {
            Governed::No => false,
            Governed::First => self.second.is_none(),
            Governed::Yes => true,
        }
    }

    /// A container of which nothing is known but where it is.
    pub fn of_nobody(handle: &Handle, ip: Ipv4Addr, second: Option<Second>) -> Self {
        Self {
            handle: handle.clone(),
            ip,
            second,
            links: Vec::new(),
            mapped: Vec::new(),
            workload: Workload::Other,
            egress: Vec::new(),
            governed: Governed::No,
        }
    }
}

/// A port of the cell that leads to a port of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mapped {
    pub host_ip: Ipv4Addr,
    pub host_port: u16,
    pub container_port: u16,
}

/// All rules for one container; what exists of `facts.handle` beyond them should go
/// ([`Handle::scope`]).
pub(crate) fn ruleset(cell: &Cell, facts: &Facts) -> Ruleset {
    ruleset_but(cell, facts, |_, _| false)
}

/// The same, but for chains that hold anything already.
pub(crate) fn what_is_missing(cell: &Cell, facts: &Facts, observed: &Observed) -> Ruleset {
    ruleset_but(cell, facts, |table, chain| {
        observed.rules(table, chain.as_str()).is_some_and(|rules| !rules.is_empty())
    })
}

fn ruleset_but(cell: &Cell, facts: &Facts, stays: impl Fn(Table, &ChainName) -> bool) -> Ruleset {
    let Chains { input, netout, overlay, netin } = facts.handle.chains();
    let ip = facts.ip;
    let jump = |chain: &ChainName| Rule::new(Action::Jump(chain.clone()));
    let mut ruleset = Ruleset::new();
    let mut hook = |table, parent, rule| ruleset.hook(table, parent, Place::Last, rule);

    hook(Table::Filter, Builtin::Input, jump(&input).from(ip));
    hook(Table::Filter, Builtin::Forward, jump(&netout).from(ip).not_to(cell.overlay));
    hook(Table::Filter, Builtin::Forward, jump(&overlay).from(ip).to(cell.overlay));
    hook(Table::Filter, Builtin::Forward, jump(&overlay).to(ip));
    hook(Table::Mangle, Builtin::Prerouting, jump(&netin));
    hook(Table::Nat, Builtin::Prerouting, jump(&netin));
    for rule in masquerade(cell, facts) {
        hook(Table::Nat, Builtin::Postrouting, rule);
    }
    if let Some(second) = &facts.second {
        second.hook(&mut ruleset, &facts.handle.chains());
    }

    if !stays(Table::Filter, &netout) {
        netout_rules(&mut ruleset, netout, cell, facts);
    }
    let chains = [
        (Table::Filter, input, input_rules(cell, facts)),
        (Table::Filter, overlay, overlay_rules(cell, facts)),
        (Table::Mangle, netin.clone(), mark_rules(cell, facts)),
        (Table::Nat, netin, redirect_rules(facts)),
    ];
    for (table, chain, rules) in chains {
        if !stays(table, &chain) {
            ruleset.chain(table, chain, rules);
        }
    }
    ruleset
}

fn established() -> Rule {
    Rule::new(Action::Accept).state(ConnectionState::RelatedOrEstablished)
}

fn refuse() -> [Rule; 2] {
    Rule::reject(|rule| rule)
}

/// Whether the policy agent has put its security groups in front of a container's chain. However the
/// firewall words it, such a rule ends in where it leads.
pub(crate) fn governed(handle: &Handle, observed: &Observed) -> Governed {
    let netout = handle.chains().netout;
    let is_governed = |table| {
        let first = observed.rules(table, netout.as_str()).and_then(<[String]>::first);
        let leads_to = first.and_then(|rule| rule.rsplit([' ', '/']).next());
        leads_to == Some(egress::groups_chain(handle.as_str()).as_str())
    };
    let apart = observed.chains(Table::Filter6).next().is_some();
    match is_governed(Table::Filter) {
        false => Governed::No,
        true if apart && !is_governed(Table::Filter6) => Governed::First,
        true => Governed::Yes,
    }
}

/// Whether it has, at least of the first address.
pub(crate) fn is_governed(handle: &Handle, observed: &Observed) -> bool {
    governed(handle, observed) != Governed::No
}

/// Whether somebody else has taken away what a container may send to the world, and with it the jump that
/// may have stood there; or, of a second address, the jump alone.
pub(crate) fn is_lost(facts: &Facts, observed: &Observed) -> bool {
    let netout = facts.handle.chains().netout;
    let is_empty = |table| observed.rules(table, netout.as_str()).is_none_or(<[String]>::is_empty);
    let apart = facts.second.is_some() && observed.chains(Table::Filter6).next().is_some();
    let is_half_linked = facts.governed == Governed::First && facts.second.is_some();
    is_empty(Table::Filter) || apart && is_empty(Table::Filter6) || is_half_linked
}

/// Whether the policy agent's chain, in which policies are, stands there.
pub(crate) fn has_agent(observed: &Observed) -> bool {
    observed.rules(Table::Filter, "vpa--forward").is_some()
}

/// Whether a rule of POSTROUTING is the one the CNI wrapper masquerades `ip` by (spec/cell.md §C.6).
pub(crate) fn is_wrappers_masquerade(rule: &str, ip: Ipv4Addr) -> bool {
    let about = rule.strip_prefix(&format!("-s {ip}/32 "));
    about.is_some_and(|rest| rest.ends_with("-j MASQUERADE") && !rest.contains("--comment"))
}

fn groups_rule(facts: &Facts) -> Option<Rule> {
    let jump = Rule::new(Action::Jump(egress::groups_chain(facts.handle.as_str())));
    match facts.governed {
        Governed::No => None,
        Governed::First => Some(jump.from(facts.ip)),
        Governed::Yes => Some(jump),
    }
}

/// Resolvers that are link-local live on this host; the others are reached through `netout--`.
fn input_rules(cell: &Cell, facts: &Facts) -> Vec<Rule> {
    let mut rules = vec![established()];
    rules.extend(facts.second.iter().flat_map(|_| second::discovery()));
    let open = |protocol, ip: Ipv4Addr, port: u16| {
        let ports = PortRange::new(port, port).ok()?;
        Some(Rule::new(Action::Accept).to(ip).ports(protocol, ports))
    };
    for server in &cell.dns_servers {
        if let IpAddr::V4(server) = server
            && server.is_link_local()
        {
            rules.extend(open(Protocol::Tcp, *server, 53));
            rules.extend(open(Protocol::Udp, *server, 53));
        }
    }
    for (protocol, service) in &cell.host_services {
        rules.extend(open(*protocol, *service.ip(), service.port()));
    }
    rules.extend(refuse());
    rules
}

/// TCP packets of no connection are dropped, since refusing them would answer, and accepting them
/// would leak the container's address past the masquerade (spec/cell.md §0.2, 2018-06-20).
///
/// VXLAN is refused whatever the container may do otherwise: it would leave under the address of this
/// cell, and a cell believes what another says of who sent a packet (spec/cell.md §G, trust).
///
/// From a jump to the agent's groups nothing comes back, so what is behind it has no say.
fn netout_rules(ruleset: &mut Ruleset, netout: ChainName, cell: &Cell, facts: &Facts) {
    let first = groups_rule(facts);
    let sender =
        Sender { handle: facts.handle.as_str(), workload: facts.workload, allowed: &facts.egress };
    cell.manner.govern(ruleset, netout, &sender, &WaysOut { first, ..WaysOut::default() });
}

/// What is refused here is told of in the words of spec/cell.md §C.5, if it is to be.
fn overlay_rules(cell: &Cell, facts: &Facts) -> Vec<Rule> {
    let ip = facts.ip;
    let mut rules = vec![
        established(),
        Rule::new(Action::Accept).from(ip).out_through(&cell.vtep).marked(),
        Rule::new(Action::Accept).to(ip).mark(Mark::exactly(cell.ingress_mark)),
    ];
    if cell.tell_of_overlay {
        let tell = egress::tell("DENY_C2C_", facts.handle.as_str(), cell.manner.denied_per_second);
        rules.push(tell.clone().to(ip));
        rules.extend(facts.second.iter().map(|second| tell.clone().to(second.ip)));
    }
    rules.extend(refuse());
    rules
}

/// The strict reverse path filter of a link keeps forged sources out, unless the link is a port of a
/// bridge: there the kernel routes, and filters, by the bridge. So this comes first of all. Nor does
/// a packet of this container come in from outside: whoever sends one there wants to pass for its app.
fn mark_rules(cell: &Cell, facts: &Facts) -> Vec<Rule> {
    let forged = |link| Rule::new(Action::Drop).not_from(facts.ip).in_through_bridge_port(link);
    let outside = |link| Rule::new(Action::Drop).from(facts.ip).in_through(link);
    let mut rules: Vec<_> = facts.links.iter().map(forged).collect();
    rules.extend(cell.underlay.iter().chain([&cell.vtep]).map(outside));
    if let Some(second) = &facts.second {
        rules.extend(second.forged(cell.underlay.iter().chain([&cell.vtep])));
    }
    for mapped in &facts.mapped {
        for interface in &cell.underlay {
            let mark = Rule::new(Action::SetMark(cell.ingress_mark)).in_through(interface);
            rules.extend(at_mapped_port(mark, mapped));
        }
    }
    rules
}

fn redirect_rules(facts: &Facts) -> Vec<Rule> {
    let redirect = |mapped: &Mapped| {
        let action = Action::Dnat(facts.ip.into(), mapped.container_port);
        at_mapped_port(Rule::new(action), mapped)
    };
    facts.mapped.iter().filter_map(redirect).collect()
}

/// `None` for port 0, which nobody can connect to.
fn at_mapped_port(rule: Rule, mapped: &Mapped) -> Option<Rule> {
    let port = PortRange::new(mapped.host_port, mapped.host_port).ok()?;
    Some(rule.to(mapped.host_ip).ports(Protocol::Tcp, port))
}

/// Where packets keep the container's address is configured, but the overlay is always among it: there,
/// that is who sends.
fn masquerade(cell: &Cell, facts: &Facts) -> Vec<Rule> {
    let of_container = |action| {
        let rule = Rule::new(action).from(facts.ip);
        rule.comment(&facts.handle.masquerade_comment())
    };
    let kept = cell.unmasqueraded.unwrap_or(cell.overlay);
    let within =
        (!kept.contains(&cell.overlay)).then(|| of_container(Action::Accept).to(cell.overlay));
    let masquerade = of_container(Action::Masquerade).not_to(kept).not_out_through(&cell.vtep);
    within.into_iter().chain([masquerade]).collect()
}

#[cfg(test)]
mod tests;
