//! Which live connections no policy allows (any more), as a pure function.
//!
//! A packet of an established connection passes without being judged, so these connections must be
//! forgotten: their next packet is judged by the rules, refused if no policy lets it in, and let in if
//! one does. Forgetting too much therefore cuts nothing that is allowed.

use std::collections::BTreeMap;

use netfilter::conntrack::Connection;
use policy::AppGuid;

use crate::world::{INGRESS_MARK, World};

/// The connections to containers of this cell that must be judged anew.
pub(crate) fn unlawful(connections: &[Connection], world: &World) -> Vec<Connection> {
    let apps: BTreeMap<_, _> = world.residents.iter().map(|r| (r.ip, &r.app)).collect();
    let unlawful = |connection: &&Connection| {
        apps.get(&connection.responder).is_some_and(|app| !lawful(connection, app, world))
    };
    connections.iter().filter(unlawful).copied().collect()
}

fn lawful(connection: &Connection, app: &AppGuid, world: &World) -> bool {
    match connection.mark {
        INGRESS_MARK => true,
        // Nobody judged this one: it is from outside the overlay, or from the host itself, or from
        // before our time. Only the last kind is a matter of policy.
        0 => {
            let source = connection.source;
            let host = source == world.subnet.gateway || source == world.subnet.block.network();
            host || !world.subnet.overlay.contains(&source)
        }
        mark => world.allowed_to(app).any(|allowance| {
            u32::from(allowance.mark) == mark
                && allowance.protocol == connection.protocol
                && allowance.ports.contains(connection.responder_port)
        }),
    }
}

#[cfg(test)]
mod tests {
    use policy::Protocol;

    use super::*;
    use crate::world::tests::world;

    fn connection(source: &str, responder: &str, port: u16, mark: u32) -> Connection {
        Connection {
            protocol: Protocol::Tcp,
            source: source.parse().unwrap(),
            source_port: 40000,
            destination: responder.parse().unwrap(),
            destination_port: port,
            responder: responder.parse().unwrap(),
            responder_port: port,
            mark,
        }
    }

    #[test]
    fn only_what_no_policy_allows_is_judged_anew() {
        let world = world(&[("10.255.30.3", "db")], &["web 1 db tcp 8080-8081"]);
        let judged = |source, mark, port| {
            !unlawful(&[connection(source, "10.255.30.3", port, mark)], &world).is_empty()
        };
        assert!(!judged("10.255.31.2", 1, 8080), "allowed by the policy");
        assert!(!judged("10.255.31.2", 1, 8081), "allowed by the policy's range");
        assert!(judged("10.255.31.2", 1, 8082), "another port");
        assert!(judged("10.255.31.2", 2, 8080), "another source");
        assert!(judged("10.255.31.2", 0, 8080), "from the overlay, never judged");
        assert!(!judged("10.0.16.100", INGRESS_MARK, 8080), "through a mapped port");
        assert!(!judged("10.255.30.1", 0, 8080), "from the host");
        assert!(!judged("192.0.2.1", 0, 8080), "from outside the overlay");
    }

    #[test]
    fn connections_of_others_are_none_of_our_business() {
        let world = world(&[("10.255.30.3", "db")], &[]);
        assert!(unlawful(&[connection("10.255.30.3", "10.255.31.9", 80, 5)], &world).is_empty());
    }

    #[test]
    fn a_policy_for_tcp_does_not_keep_udp() {
        let world = world(&[("10.255.30.3", "db")], &["web 1 db tcp 53"]);
        let mut udp = connection("10.255.31.2", "10.255.30.3", 53, 1);
        udp.protocol = Protocol::Udp;
        assert_eq!(unlawful(&[udp], &world), [udp]);
    }
}
