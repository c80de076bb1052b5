//! Which live connections out of the overlay no group allows (any more), as a pure function. Packets of
//! established connections pass unjudged, so these are forgotten: their next packet is judged anew.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::Ipv4Net;
use netfilter_events::conntrack::Connection;

use super::desired::Governed;

/// The connections of governed containers that must be judged anew. Those to the host itself may be
/// among them, which harms them not: what lets them in asks no state.
pub(crate) fn unlawful(
    connections: &[Connection],
    governed: &[Governed],
    overlay: Ipv4Net,
) -> Vec<Connection> {
    let by_ip: BTreeMap<IpAddr, _> = governed.iter().map(|one| (one.ip.into(), one)).collect();
    let near = |address| match address {
        IpAddr::V4(address) => overlay.contains(&address) || address.is_link_local(),
        IpAddr::V6(_) => false,
    };
    let unlawful = |connection: &&Connection| {
        let out = !near(connection.responder);
        by_ip.get(&connection.source).is_some_and(|one| out && !one.allows(connection))
    };
    connections.iter().filter(unlawful).copied().collect()
}

impl Governed {
    /// Where it leads after translation is what the rules judge.
    fn allows(&self, connection: &Connection) -> bool {
        let Connection { protocol, responder, responder_port, .. } = connection;
        let in_net = |net: &Ipv4Net| matches!(responder, IpAddr::V4(to) if net.contains(to));
        let denied = self.denied.iter().any(in_net);
        !denied
            && self.allowed.iter().any(|rule| rule.allows(*protocol, *responder, *responder_port))
    }
}

#[cfg(test)]
mod tests {
    use policy::{EgressRule, Protocol, Traffic};

    use super::*;

    #[test]
    fn only_what_no_group_allows_is_judged_anew() {
        let allowed = EgressRule {
            destinations: vec!["192.0.2.0/24".parse().unwrap()],
            traffic: Traffic::Ports(Protocol::Tcp, vec!["80".parse().unwrap()]),
            log: false,
        };
        let denied = vec!["192.0.2.128/25".parse().unwrap()];
        let web = Governed { ip: "10.255.30.2".parse().unwrap(), allowed: vec![allowed], denied };
        let judged = |protocol, source: &str, responder: &str, responder_port| {
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
            let overlay = "10.255.0.0/16".parse().unwrap();
            !unlawful(&[connection], std::slice::from_ref(&web), overlay).is_empty()
        };
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
    }
}
