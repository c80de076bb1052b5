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
//! What policies allow never gets this far: the policy agent's chain stands in front and has the
//! first word. A packet to the overlay that it did not accept or mark is refused here already, on the
//! sender's cell, and a rule that allows the whole world does not allow the overlay.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    num::NonZeroU16,
};

use ipnet::Ipv4Net;
use netfilter::{
    Action, Builtin, ConnectionState, Interface, Mark, Observed, Place, RejectWith, Rule, Ruleset,
    Table, Transport, egress,
};
use policy::{EgressRule, PortRange, Protocol};

use crate::handle::{Chains, Handle};

/// What all containers of this cell have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    /// Where containers live.
    pub overlay: Ipv4Net,
    /// The device that leads to those of other cells.
    pub vtep: Interface,
    /// The UDP port at which cells take each other's word for who sent a packet.
    pub vtep_port: NonZeroU16,
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
}

/// What is known of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub handle: Handle,
    pub ip: Ipv4Addr,
    /// The host's ends of its links.
    pub links: Vec<Interface>,
    pub mapped: Vec<Mapped>,
    pub egress: Vec<EgressRule>,
    /// Whether the policy agent keeps its security groups; `egress` has no say then.
    pub governed: bool,
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
    let Chains { input, netout, overlay, netin } = facts.handle.chains();
    let ip = facts.ip;
    let jump = |chain: &netfilter::ChainName| Rule::new(Action::Jump(chain.clone()));
    let mut ruleset = Ruleset::new();
    let mut hook = |table, parent, rule| ruleset.hook(table, parent, Place::Last, rule);

    hook(Table::Filter, Builtin::Input, jump(&input).from(ip));
    hook(Table::Filter, Builtin::Forward, jump(&netout).from(ip).not_to(cell.overlay));
    hook(Table::Filter, Builtin::Forward, jump(&overlay).from(ip).to(cell.overlay));
    hook(Table::Filter, Builtin::Forward, jump(&overlay).to(ip));
    hook(Table::Mangle, Builtin::Prerouting, jump(&netin));
    hook(Table::Nat, Builtin::Prerouting, jump(&netin));
    hook(Table::Nat, Builtin::Postrouting, masquerade(cell, facts));

    ruleset.chain(Table::Filter, input, input_rules(cell));
    ruleset.chain(Table::Filter, netout, netout_rules(cell, facts));
    ruleset.chain(Table::Filter, overlay, overlay_rules(cell, ip));
    ruleset.chain(Table::Mangle, netin.clone(), mark_rules(cell, facts));
    ruleset.chain(Table::Nat, netin, redirect_rules(facts));
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
pub(crate) fn is_governed(handle: &Handle, observed: &Observed) -> bool {
    let netout = handle.chains().netout;
    let first = observed.rules(Table::Filter, netout.as_str()).and_then(<[String]>::first);
    let leads_to = first.and_then(|rule| rule.rsplit([' ', '/']).next());
    leads_to == Some(egress::groups_chain(handle.as_str()).as_str())
}

fn groups_rule(handle: &Handle) -> Rule {
    Rule::new(Action::Jump(egress::groups_chain(handle.as_str())))
}

/// Resolvers that are link-local live on this host; the others are reached through `netout--`.
fn input_rules(cell: &Cell) -> Vec<Rule> {
    let mut rules = vec![established()];
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
fn netout_rules(cell: &Cell, facts: &Facts) -> Vec<Rule> {
    let stray = Rule::new(Action::Drop).transport(Transport::Tcp).state(ConnectionState::Invalid);
    let vxlan = Rule::new(Action::Reject(RejectWith::PortUnreachable))
        .ports(Protocol::Udp, PortRange::single(cell.vtep_port));
    let groups = facts.governed.then(|| groups_rule(&facts.handle));
    let mut rules: Vec<_> = groups.into_iter().chain([established(), stray, vxlan]).collect();
    for rule in facts.egress.iter().flat_map(egress::accept) {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    rules.extend(refuse());
    rules
}

fn overlay_rules(cell: &Cell, ip: Ipv4Addr) -> Vec<Rule> {
    let mut rules = vec![
        established(),
        Rule::new(Action::Accept).from(ip).out_through(&cell.vtep).marked(),
        Rule::new(Action::Accept).to(ip).mark(Mark::exactly(cell.ingress_mark)),
    ];
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

fn masquerade(cell: &Cell, facts: &Facts) -> Rule {
    Rule::new(Action::Masquerade)
        .from(facts.ip)
        .not_to(cell.overlay)
        .not_out_through(&cell.vtep)
        .comment(&facts.handle.masquerade_comment())
}

#[cfg(test)]
mod tests;
