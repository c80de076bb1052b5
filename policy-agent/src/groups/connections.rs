//! Which live connections out of the overlay no group allows (any more), as a pure function. Packets of
//! established connections pass unjudged, so these are forgotten: their next packet is judged anew.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netfilter_events::conntrack::{Connection, Portless};
use policy::{Permissions, Traffic};

use super::desired::Governed;

/// The protocols' numbers.
const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;

/// Where containers are, of which groups have no say: the overlay, and where their second addresses are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Networks {
    pub overlay: Ipv4Net,
    pub second: Option<Ipv6Net>,
}

/// The connections of governed containers that must be judged anew. Those to the host itself may be
/// among them, which harms them not: what lets them in asks no state.
pub(crate) fn unlawful(
    connections: &[Connection],
    governed: &[Governed],
    networks: Networks,
) -> Vec<Connection> {
    let by_ip = by_ip(governed);
    let unlawful = |connection: &&Connection| {
        let Connection { protocol, source, responder, responder_port, .. } = **connection;
        by_ip.get(&source).is_some_and(|one| {
            let allows = |all: &Permissions| all.allow(protocol, responder, responder_port);
            networks.are_left_for(responder) && !one.allows(responder, allows)
        })
    };
    connections.iter().filter(unlawful).copied().collect()
}

/// The same of protocols without ports: whether one must be.
pub(crate) fn unlawful_portless(
    governed: &[Governed],
    networks: Networks,
) -> impl Fn(&Portless) -> bool {
    let by_ip = by_ip(governed);
    move |&Portless { protocol, kind, source, responder }| {
        by_ip.get(&source).is_some_and(|one| {
            let meant = |traffic: &Traffic| match traffic {
                Traffic::All => true,
                Traffic::Icmp(wanted, _) => {
                    protocol == ICMP && (wanted.is_none() || *wanted == kind)
                }
                Traffic::IcmpV6(wanted, _) => {
                    protocol == ICMP_V6 && (wanted.is_none() || *wanted == kind)
                }
                _ => false,
            };
            let allows = |all: &Permissions| all.reach(responder, meant);
            networks.are_left_for(responder) && !one.allows(responder, allows)
        })
    }
}

fn by_ip(governed: &[Governed]) -> BTreeMap<IpAddr, &Governed> {
    let second = governed.iter().filter_map(|one| Some((IpAddr::from(one.second?), one)));
    governed.iter().map(|one| (one.ip.into(), one)).chain(second).collect()
}

impl Networks {
    /// Whether security groups have a say about what goes there.
    fn are_left_for(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => !self.overlay.contains(&address) && !address.is_link_local(),
            IpAddr::V6(address) => {
                let inside = self.second.is_some_and(|net| net.contains(&address));
                !inside && !address.is_unicast_link_local()
            }
        }
    }
}

impl Governed {
    /// Where it leads after translation is what the rules judge. What is only watched is let through.
    fn allows(&self, responder: IpAddr, allows: impl Fn(&Permissions) -> bool) -> bool {
        let in_net = |net: &IpNet| net.contains(&responder);
        let is_allowed = || self.groups.iter().any(|group| allows(&group.permissions));
        !self.denied.iter().any(in_net) && (self.watched || is_allowed())
    }
}

#[cfg(test)]
mod tests {
    use policy::{EgressRule, Protocol};

    use super::*;
    use crate::groups::desired::tests::governed;

    fn networks() -> Networks {
        let second = Some("fd00:255::/48".parse().unwrap());
        Networks { overlay: "10.255.0.0/16".parse().unwrap(), second }
    }

    #[test]
    fn connections_of_the_second_address_are_judged_as_well() {
        let rule = |to: &str, traffic| EgressRule {
            destinations: vec![to.parse().unwrap()],
            traffic,
            log: false,
        };
        let tcp = Traffic::Ports(Protocol::Tcp, vec!["80".parse().unwrap()]);
        let echo = Traffic::IcmpV6(Some(128), Some(0));
        let allowed = vec![rule("2001:db8::/64", tcp), rule("2001:db8::1", echo)];
        let denied = vec!["2001:db8::8000/113".parse().unwrap()];
        let second = Some("fd00:255::2".parse().unwrap());
        let web = [Governed { second, denied, ..governed("10.255.30.2", allowed) }];
        let judged = |source: &str, responder: &str, responder_port| {
            let [source, responder] = [source, responder].map(|ip| ip.parse().unwrap());
            let connection = Connection {
                protocol: Protocol::Tcp,
                source,
                source_port: 40000,
                destination: responder,
                destination_port: responder_port,
                responder,
                responder_port,
                mark: 0,
                id: None,
                zone: 0,
            };
            !unlawful(&[connection], &web, networks()).is_empty()
        };
        assert!(!judged("fd00:255::2", "2001:db8::1", 80), "allowed");
        assert!(judged("fd00:255::2", "2001:db8::1", 81), "another port");
        assert!(judged("fd00:255::2", "2001:db8:1::1", 80), "another network");
        assert!(judged("fd00:255::2", "2001:db8::8001", 80), "a denied network");
        assert!(!judged("fd00:255::2", "fd00:255::3", 80), "a container");
        assert!(!judged("fd00:255::9", "2001:db8::1", 81), "of nobody here");
        let judge = unlawful_portless(&web, networks());
        let ping = |protocol, responder: &str| {
            let [source, responder] = ["fd00:255::2", responder].map(|ip| ip.parse().unwrap());
            judge(&Portless { protocol, kind: Some(128), source, responder })
        };
        assert!(!ping(ICMP_V6, "2001:db8::1") && ping(ICMP_V6, "2001:db8::2"));
        assert!(ping(132, "2001:db8::1"));
    }

    #[test]
    fn only_what_no_group_allows_is_judged_anew() {
        let allowed = EgressRule {
            destinations: vec!["192.0.2.0/24".parse().unwrap()],
            traffic: Traffic::Ports(Protocol::Tcp, vec!["80".parse().unwrap()]),
            log: false,
        };
        let denied = vec!["192.0.2.128/25".parse().unwrap()];
        let web = Governed { denied, ..governed("10.255.30.2", vec![allowed]) };
        let judged_of =
            |web: &Governed, protocol, source: &str, responder: &str, responder_port| {
                let connection = Connection {
                    protocol,
                    source: source.parse().unwrap(),
                    source_port: 40000,
                    // As the container dialled it, before translation.
                    destination: "198.51.100.1".parse().unwrap(),
                    destination_port: 9,
                    responder: responder.parse().unwrap(),
                    responder_port,
                    mark: 0,
                    id: None,
                    zone: 0,
                };
                !unlawful(&[connection], std::slice::from_ref(web), networks()).is_empty()
            };
        let judged =
            |protocol, source, responder, port| judged_of(&web, protocol, source, responder, port);
        let (tcp, udp, ip) = (Protocol::Tcp, Protocol::Udp, "10.255.30.2");
        assert!(!judged(tcp, ip, "192.0.2.1", 80), "allowed");
        assert!(judged(tcp, ip, "192.0.2.1", 81), "another port");
        assert!(judged(udp, ip, "192.0.2.1", 80), "another protocol");
        assert!(judged(tcp, ip, "192.0.3.1", 80), "another network");
        assert!(judged(tcp, ip, "192.0.2.200", 80), "a denied network");
        assert!(!judged(tcp, ip, "10.255.31.2", 80), "a container, which is for policies to say");
        assert!(!judged(udp, ip, "169.254.0.2", 53), "the host's own resolver");
        assert!(
            !judged(tcp, "10.255.30.9", "192.0.3.1", 80),
            "of a container that is not governed"
        );
        let watched = Governed { watched: true, ..web.clone() };
        assert!(!judged_of(&watched, tcp, ip, "192.0.3.1", 80), "it is only watched");
        assert!(judged_of(&watched, tcp, ip, "192.0.2.200", 80), "a denied network");
    }

    #[test]
    fn a_ping_is_allowed_by_its_type_or_by_all_there_is() {
        let rule = |to: &str, traffic| EgressRule {
            destinations: vec![to.parse().unwrap()],
            traffic,
            log: false,
        };
        let allowed = vec![
            rule("192.0.2.1", Traffic::Icmp(Some(8), Some(0))),
            rule("192.0.2.2", Traffic::Icmp(Some(13), None)),
            rule("192.0.2.3", Traffic::All),
            rule("192.0.2.4", Traffic::Ports(Protocol::Tcp, vec!["1-65535".parse().unwrap()])),
        ];
        let web = [governed("10.255.30.2", allowed)];
        let judge = unlawful_portless(&web, networks());
        let judged = |protocol, responder: &str| {
            let source = "10.255.30.2".parse().unwrap();
            judge(&Portless {
                protocol,
                kind: Some(8),
                source,
                responder: responder.parse().unwrap(),
            })
        };
        assert!(!judged(ICMP, "192.0.2.1"), "allowed");
        assert!(judged(132, "192.0.2.1"), "another protocol");
        assert!(judged(ICMP, "192.0.2.2"), "another type");
        assert!(!judged(132, "192.0.2.3"), "everything is allowed");
        assert!(judged(ICMP, "192.0.2.4"), "only TCP is");
    }
}
