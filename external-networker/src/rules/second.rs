//! What the firewall says of a container's second address, which is of IPv6: the same chains as of the
//! first, and what leads there said once more.
//!
//! ```text
//!  to this host      INPUT    -s ip               → input--     and neighbour discovery
//!  to the world      FORWARD  -s ip ! -d network  → netout--
//!  to containers     FORWARD  -s ip   -d network  → overlay--
//!  from anywhere     FORWARD  -d ip               → overlay--
//!  forged sources    PREROUTING (mangle)          → netin--     dropped
//! ```
//!
//! Nothing translates its addresses: what a container sends arrives under its own, and no port of the cell
//! leads to it.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use netfilter::{Action, Builtin, ChainName, Icmp, Interface, Place, Rule, Ruleset, Table};

use crate::handle::Chains;

/// A container's address of IPv6, and what it must be known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Second {
    pub ip: Ipv6Addr,
    /// Where the second addresses of all containers are, of this cell and others.
    pub network: Ipv6Net,
    /// The host's ends of links nobody else sends through.
    pub links: Vec<Interface>,
    /// Those that are ports of a bridge: what comes in there seems to come in through the bridge.
    pub ports: Vec<Interface>,
}

/// ICMPv6 types: who looks for a router, or a neighbour, and who says that it is one. Routers introduce
/// themselves, and redirect, too; no container is one.
const ROUTER_SOLICITATION: u8 = 133;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

impl Second {
    /// An address of which it is not known where it is.
    pub fn of_nobody(ip: Ipv6Addr, network: Ipv6Net) -> Self {
        Self { ip, network, links: Vec::new(), ports: Vec::new() }
    }

    /// Leads to the container's chains what is from or to this address.
    pub fn hook(&self, ruleset: &mut Ruleset, chains: &Chains) {
        let Chains { input, netout, overlay, netin: _ } = chains;
        let jump = |chain: &ChainName| Rule::new(Action::Jump(chain.clone()));
        let mut hook = |parent, rule| ruleset.hook(Table::Filter, parent, Place::Last, rule);
        hook(Builtin::Input, jump(input).from(self.ip));
        hook(Builtin::Forward, jump(netout).from(self.ip).not_to(self.network));
        hook(Builtin::Forward, jump(overlay).from(self.ip).to(self.network));
        hook(Builtin::Forward, jump(overlay).to(self.ip));
    }

    /// Drops what comes in through its links under another address, as no filter of the reverse path does
    /// for IPv6, and what comes in from outside under this one.
    pub fn forged<'a>(&self, outside: impl Iterator<Item = &'a Interface>) -> Vec<Rule> {
        let links = self.links.iter();
        let mut rules: Vec<_> =
            links.flat_map(|link| self.only_from_here(|rule| rule.in_through(link))).collect();
        let ports = self.ports.iter();
        rules.extend(
            ports.flat_map(|port| self.only_from_here(|rule| rule.in_through_bridge_port(port))),
        );
        let outside = outside.map(|link| Rule::new(Action::Drop).from(self.ip).in_through(link));
        rules.extend(outside);
        rules
    }

    /// Whoever looks for neighbours does so under an address of the link alone, or before it has any;
    /// nothing else under such an address is meant for anybody but this host, whose rules ask who sends.
    fn only_from_here(&self, through: impl Fn(Rule) -> Rule) -> Vec<Rule> {
        let link_local = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
        let nobody = Ipv6Net::from(Ipv6Addr::UNSPECIFIED);
        let passes = |(kind, from): (u8, Ipv6Net)| {
            through(Rule::new(Action::Return).from(from).icmp_v6(any_code(kind)))
        };
        let passing = [
            (ROUTER_SOLICITATION, link_local),
            (NEIGHBOUR_SOLICITATION, link_local),
            (NEIGHBOUR_ADVERTISEMENT, link_local),
            (ROUTER_SOLICITATION, nobody),
            (NEIGHBOUR_SOLICITATION, nobody),
        ];
        let mut rules: Vec<_> = passing.map(passes).into();
        rules.push(through(Rule::new(Action::Drop).not_from(self.ip)));
        rules
    }
}

/// Lets a container find this host, and be found. The kernel takes such messages from the link only.
pub(super) fn discovery() -> [Rule; 3] {
    let kinds = [ROUTER_SOLICITATION, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT];
    kinds.map(|kind| Rule::new(Action::Accept).icmp_v6(any_code(kind)))
}

fn any_code(kind: u8) -> Icmp {
    Icmp { kind, code: None }
}
