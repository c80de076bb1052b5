//! Which live connections no policy allows (any more), as a pure function.
//!
//! A packet of an established connection passes without being judged, so these connections must be
//! forgotten: their next packet is judged by the rules, and refused. Both cells of a connection forget
//! it, the one that runs its source and the one that runs its destination, since an answer that either
//! still took for established would keep it alive.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use ipnet::Ipv4Net;
use netfilter::{Allow, Family};
use netfilter_events::conntrack::{Connection, Pick, Portless};
use policy::AppGuid;

use crate::{
    allowances::{Allowance, Change},
    lists::Lists,
    world::World,
};

/// To pick more than so many times costs more than to list all.
const FEW: usize = 16;

/// Which connections may be unlawful.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Suspects {
    /// All, those of protocols without ports among them.
    All,
    /// These.
    Picked(BTreeSet<Pick>),
}

/// Which connections may be unlawful in `world` that were not in `earlier`, if nobody but us has written
/// to the kernel in between: where only policies were taken away, those they let in.
pub(crate) fn suspects(earlier: &World, world: &World) -> Suspects {
    if !world.differs_in_policies_only(earlier) {
        return Suspects::All;
    }
    let mut picks = BTreeSet::new();
    for change in earlier.allowances.changes(&world.allowances) {
        let Change::Gone(Allowance { source, destination, mark, protocol, ports, .. }) = change
        else {
            continue;
        };
        let port = ports.as_single().map(|port| (*protocol, port));
        let marked = |ip| Pick::Marked(Family::of(ip), (*mark).into(), port);
        picks.extend(world.addresses_of(destination).map(marked));
        picks.extend(world.addresses_of(source).map(|ip| Pick::From(ip, port)));
        if picks.len() > FEW {
            return Suspects::All;
        }
    }
    Suspects::Picked(picks)
}

/// The connections from and to containers of this cell that must be judged anew.
///
/// Costs a look at each connection, and one at what the apps that have opened connections may reach;
/// not one for every pair of them.
///
/// What is only watched is not judged, and nothing is where policies are disabled.
pub(crate) fn unlawful(
    connections: &[Connection],
    world: &World,
    lists: &Lists,
) -> Vec<Connection> {
    if world.leniency.no_policy || world.policies_disabled {
        return Vec::new();
    }
    let apps: HashMap<IpAddr, _> = world.residents.iter().map(|r| (r.ip, &r.app)).collect();
    let nets = world.addresses();
    let mut admitted: BTreeMap<&AppGuid, [Allow; 2]> = BTreeMap::new();
    // Many connections ask the same about where they go.
    let mut allowed_out = HashMap::new();
    let unlawful = |connection: &&Connection| match (
        apps.get(&connection.responder),
        apps.get(&connection.source),
    ) {
        (Some(app), source) => {
            let admitted = admitted
                .entry(*app)
                .or_insert_with(|| [lists.admitted_to(app), world.still_admitted_to(app)]);
            !may_come(connection, source.copied(), admitted, world)
        }
        // Outside the overlay and on the host itself it is no matter of policy.
        (None, Some(app)) => {
            let Connection { protocol, responder, responder_port, mark, .. } = **connection;
            if is_host(responder, world) || !in_overlay(responder, world) {
                return false;
            }
            let question = (*app, protocol, responder_port, mark);
            let allowed = allowed_out.entry(question);
            !*allowed.or_insert_with(|| may_go(connection, app, world))
        }
        (None, None) => is_between_nobodys(connection, &nets, world),
    };
    connections.iter().filter(unlawful).copied().collect()
}

/// The same of protocols without ports, pings most of all: whether one must be. No policy speaks of them,
/// so one between containers is from a time when it was only watched, or when somebody else's rule let it
/// in; and a ping that goes on would go on for ever.
pub(crate) fn unlawful_portless(world: &World) -> impl Fn(&Portless) -> bool {
    let here: HashSet<IpAddr> = world.residents.iter().map(|r| r.ip).collect();
    move |&Portless { source, responder, .. }| {
        let is_here = here.contains(&source) || here.contains(&responder);
        let is_between =
            [source, responder].iter().all(|ip| in_overlay(*ip, world) && !is_host(*ip, world));
        !world.leniency.no_policy && !world.policies_disabled && is_here && is_between
    }
}

/// Whether a connection of `source`, if that is an app of this cell, may come in to a container to which
/// this is admitted.
fn may_come(
    connection: &Connection,
    source: Option<&AppGuid>,
    admitted: &[Allow; 2],
    world: &World,
) -> bool {
    let mark = match (connection.mark, source) {
        (saved, None) => saved,
        (saved, _) if saved == 0 || saved == world.ingress_mark => saved,
        // Another may have its tag by now.
        (_, Some(source)) => world.mark_of(source).unwrap_or(0).into(),
    };
    match mark {
        mark if mark == world.ingress_mark => true,
        // Nobody judged this one: it is from outside the overlay, or from the host itself, or from
        // before our time. Only the last kind is a matter of policy.
        0 => is_host(connection.source, world) || !in_overlay(connection.source, world),
        mark => admitted
            .iter()
            .any(|admitted| admitted.permits(mark, connection.protocol, connection.responder_port)),
    }
}

/// Whether containers have it that no policy can be about: of this cell, one of them at least, without an
/// identity; or by second addresses that an agent before us had rules for, which told their marks.
fn is_between_nobodys(connection: &Connection, nets: &BTreeSet<Ipv4Net>, world: &World) -> bool {
    let Connection { source, responder, mark, .. } = *connection;
    let ends = [source, responder];
    let is_here = |end: IpAddr| match end {
        IpAddr::V4(end) => nets.iter().any(|net| net.contains(&end)),
        IpAddr::V6(end) => mark != 0 && world.unruled.contains(&end),
    };
    let is_between = |end: IpAddr| match end {
        IpAddr::V4(_) => in_overlay(end, world) && !is_host(end, world),
        IpAddr::V6(_) => is_here(end),
    };
    mark != world.ingress_mark && ends.into_iter().all(is_between) && ends.into_iter().any(is_here)
}

/// Whether a connection of a container of `app` may go where it goes, which is another cell of the
/// overlay. Whose container is there is known once it has answered with a mark.
fn may_go(connection: &Connection, app: &AppGuid, world: &World) -> bool {
    let Connection { protocol, responder_port, mark, .. } = connection;
    let meant =
        |there: Option<u16>| *mark == 0 || there.is_none_or(|there| u32::from(there) == *mark);
    let removed = world.leniency.removed.from(app);
    world.allowances.from(app).chain(removed).any(|allowance| {
        allowance.protocol == *protocol
            && allowance.ports.contains(*responder_port)
            && meant(allowance.destination_mark())
    })
}

/// The addresses of this cell's own in the overlay. Of IPv6 nobody tells which they are: whatever is no
/// container's.
fn is_host(address: IpAddr, world: &World) -> bool {
    match address {
        IpAddr::V4(address) => {
            [world.subnet.gateway, world.subnet.block.network()].contains(&address)
        }
        IpAddr::V6(_) => world.app_at(address).is_none(),
    }
}

fn in_overlay(address: IpAddr, world: &World) -> bool {
    match address {
        IpAddr::V4(address) => world.subnet.overlay.contains(&address),
        IpAddr::V6(_) => world.is_container(address),
    }
}

#[cfg(test)]
mod tests {
    use policy::{Protocol, Tag};
    use proptest::prelude::*;

    use super::*;
    use crate::world::tests::{allowance, world};

    fn unlawful(connections: &[Connection], world: &World) -> Vec<Connection> {
        super::unlawful(connections, world, &Lists::of(world))
    }

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
            id: None,
            zone: 0,
        }
    }

    #[test]
    fn pings_between_containers_are_judged_anew_and_those_of_the_host_are_not() {
        let mut world = world(&[("10.255.30.3", "db")], &["web 1 db tcp 8080"]);
        let ping = |source: &str, responder: &str| Portless {
            protocol: 1,
            kind: Some(8),
            source: source.parse().unwrap(),
            responder: responder.parse().unwrap(),
        };
        let judged = |world: &World, source, to| unlawful_portless(world)(&ping(source, to));
        assert!(judged(&world, "10.255.31.2", "10.255.30.3"), "from another cell");
        assert!(judged(&world, "10.255.30.3", "10.255.31.2"), "to another cell");
        assert!(!judged(&world, "10.255.30.1", "10.255.30.3"), "from the host");
        assert!(!judged(&world, "10.255.30.3", "192.0.2.1"), "to outside the overlay");
        assert!(!judged(&world, "10.255.31.2", "10.255.31.3"), "of others");
        world.leniency.no_policy = true;
        assert!(!judged(&world, "10.255.31.2", "10.255.30.3"), "only watched");
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
        assert!(!judged("10.0.16.100", world.ingress_mark, 8080), "through a mapped port");
        assert!(!judged("10.255.30.1", 0, 8080), "from the host");
        assert!(!judged("192.0.2.1", 0, 8080), "from outside the overlay");
    }

    #[test]
    fn the_cell_of_the_source_forgets_it_as_well() {
        let world = world(&[("10.255.30.2", "web")], &["web 1 db tcp 8080-8081", "db 2 web tcp 9"]);
        let judged = |responder, port| {
            !unlawful(&[connection("10.255.30.2", responder, port, 0)], &world).is_empty()
        };
        assert!(!judged("10.255.31.3", 8081), "a policy of the source speaks of this port");
        assert!(judged("10.255.31.3", 8082), "none does");
        assert!(judged("10.255.31.3", 9), "only as a destination");
        assert!(!judged("192.0.2.1", 8082), "outside the overlay");
        assert!(!judged("10.255.30.1", 53), "the host itself");
    }

    #[test]
    fn where_it_was_translated_to_is_what_counts() {
        let world = world(&[("10.255.30.2", "web")], &["web 1 db tcp 8080"]);
        let opened_to = |destination: &str, port, responder, responder_port| Connection {
            destination: destination.parse().unwrap(),
            destination_port: port,
            ..connection("10.255.30.2", responder, responder_port, 0)
        };
        let judged = |connection| !unlawful(&[connection], &world).is_empty();
        assert!(!judged(opened_to("192.0.2.80", 80, "10.255.31.3", 8080)));
        assert!(judged(opened_to("192.0.2.80", 8080, "10.255.31.3", 8081)));
        assert!(!judged(opened_to("10.255.31.3", 8081, "192.0.2.80", 8081)), "to outside");
    }

    #[test]
    fn a_policy_for_another_destination_does_not_keep_it() {
        let mut world = world(&[("10.255.30.2", "web")], &[]);
        let to_log =
            Allowance { destination_tag: Tag::new(7).unwrap(), ..allowance("web 1 log tcp 8080") };
        world.allowances = [to_log].into_iter().collect();
        let judged = |mark| {
            !unlawful(&[connection("10.255.30.2", "10.255.31.3", 8080, mark)], &world).is_empty()
        };
        assert!(!judged(0), "nobody has answered yet");
        assert!(!judged(7), "log has answered");
        assert!(judged(8), "somebody else has");
    }

    #[test]
    fn what_is_only_watched_is_not_cut() {
        let mut world = world(&[("10.255.30.2", "web"), ("10.255.30.3", "db")], &[]);
        let live = [
            connection("10.255.31.2", "10.255.30.3", 8080, 9),
            connection("10.255.30.2", "10.255.31.3", 8080, 0),
        ];
        assert_eq!(unlawful(&live, &world), live);
        let removed = ["far 9 db tcp 8080", "web 1 log tcp 8080"].map(allowance);
        world.leniency.removed = std::sync::Arc::new(removed.into_iter().collect());
        assert_eq!(unlawful(&live, &world), []);
        let other = connection("10.255.31.2", "10.255.30.3", 8081, 9);
        assert_eq!(unlawful(&[other], &world), [other]);
        world.leniency.no_policy = true;
        assert_eq!(unlawful(&[other], &world), []);
    }

    #[test]
    fn connections_of_others_are_none_of_our_business() {
        let world = world(&[("10.255.30.3", "db")], &[]);
        let others = [
            connection("10.255.32.8", "10.255.31.9", 80, 5),
            connection("10.255.30.8", "192.0.2.1", 80, 0),
            connection("192.0.2.1", "10.255.30.8", 80, 0),
            connection("10.255.32.8", "10.255.30.8", 80, world.ingress_mark),
            connection("10.255.30.1", "10.255.30.8", 80, 0),
            connection("10.255.30.8", "10.255.30.1", 53, 0),
        ];
        assert_eq!(unlawful(&others, &world), []);
    }

    #[test]
    fn containers_without_an_identity_keep_no_connection_to_others() {
        let world = world(&[("10.255.30.3", "db")], &[]);
        let live = [
            connection("10.255.30.8", "10.255.31.9", 80, 5),
            connection("10.255.31.9", "10.255.30.8", 80, 5),
            connection("10.255.30.8", "10.255.30.9", 80, 0),
        ];
        assert_eq!(unlawful(&live, &world), live);
    }

    #[test]
    fn a_tag_given_anew_lets_nobody_keep_what_it_let_in() {
        let live = [connection("10.255.30.2", "10.255.30.3", 8080, 1)];
        let containers = [("10.255.30.2", "a"), ("10.255.30.3", "b")];
        assert_eq!(unlawful(&live, &world(&containers, &["a 1 b tcp 8080"])), []);
        assert_eq!(unlawful(&live, &world(&containers, &["c 1 b tcp 8080"])), live);
        let with_another = world(&containers, &["c 1 b tcp 8080", "a 4 b tcp 9"]);
        assert_eq!(unlawful(&live, &with_another), live, "it has a tag for something else");
        let again = world(&containers, &["a 4 b tcp 8080"]);
        assert_eq!(unlawful(&live, &again), [], "it would be let in again");
    }

    #[test]
    fn what_was_let_in_between_second_addresses_ends_when_these_count_for_none() {
        let mut world = world(&[("10.255.30.2", "web")], &[]);
        let live = [connection("fd00:255::2", "fd00:255::3", 8080, 1)];
        assert_eq!(unlawful(&live, &world), [], "of others");
        world.unruled = ["fd00:255::2", "fd00:255::3"].map(|ip| ip.parse().unwrap()).into();
        assert_eq!(unlawful(&live, &world), live);
        let unmarked = [connection("fd00:255::2", "fd00:255::3", 8080, 0)];
        assert_eq!(unlawful(&unmarked, &world), [], "no agent let that in");
        let outside = [connection("fd00:255::2", "2001:db8::1", 8080, 1)];
        assert_eq!(unlawful(&outside, &world), []);
    }

    #[test]
    fn second_addresses_are_judged_as_the_first() {
        let containers = [("fd00:255::2", "web"), ("fd00:255::3", "db")];
        let world = crate::world::tests::dual(&containers, &["web 1 db tcp 8080"]);
        let judged = |source, mark, port| {
            !unlawful(&[connection(source, "fd00:255::3", port, mark)], &world).is_empty()
        };
        assert!(!judged("fd00:255::2", 1, 8080), "allowed by the policy");
        assert!(judged("fd00:255::2", 1, 8081), "another port");
        assert!(judged("fd00:255::2", 0, 8080), "from a container, never judged");
        assert!(!judged("fd00:255::1", 0, 8080), "from the host");
        assert!(!judged("2001:db8::1", 0, 8080), "from outside");
        let judge = unlawful_portless(&world);
        let ping = |responder: &str| {
            let source = "fd00:255::2".parse().unwrap();
            judge(&Portless {
                protocol: 58,
                kind: Some(128),
                source,
                responder: responder.parse().unwrap(),
            })
        };
        assert!(ping("fd00:255::3") && !ping("fd00:255::1") && !ping("2001:db8::1"));
    }

    #[test]
    fn a_policy_for_tcp_does_not_keep_udp() {
        let world = world(&[("10.255.30.3", "db")], &["web 1 db tcp 53"]);
        let mut udp = connection("10.255.31.2", "10.255.30.3", 53, 1);
        udp.protocol = Protocol::Udp;
        assert_eq!(unlawful(&[udp], &world), [udp]);
    }

    /// Four apps; `a` and `b` live here, under two addresses the one, under one the other.
    const HERE: [(&str, &str); 3] =
        [("10.255.30.2", "a"), ("10.255.30.3", "a"), ("10.255.30.4", "b")];

    fn allowances() -> impl Strategy<Value = Vec<Allowance>> {
        let one = (0usize..4, 0usize..4, 8080u16..8082, any::<bool>());
        let lives = prop::array::uniform4(0u16..2);
        (prop::collection::vec(one, 0..8), lives).prop_map(|(all, lives)| {
            let apps = ["a", "b", "c", "d"];
            // An app has one tag at a time, which may be another the next time.
            let tag = |app: usize| u16::try_from(app).unwrap() + 1 + 10 * lives[app];
            let one = |(source, destination, port, is_tagged): (usize, usize, u16, bool)| {
                let (from, to) = (apps[source], apps[destination]);
                let mut one = allowance(&format!("{from} {} {to} tcp {port}", tag(source)));
                if is_tagged {
                    one.destination_tag = Tag::new(tag(destination).into()).unwrap();
                }
                one
            };
            all.into_iter().map(one).collect()
        })
    }

    fn connections() -> impl Strategy<Value = Vec<Connection>> {
        let ends = ["10.255.30.2", "10.255.30.3", "10.255.30.4", "10.255.31.2", "192.0.2.1"];
        let one = (0usize..5, 0usize..5, 8080u16..8083, 0u32..15).prop_map(
            move |(source, responder, port, mark)| {
                connection(ends[source], ends[responder], port, mark)
            },
        );
        prop::collection::vec(one, 0..20)
    }

    proptest! {
        /// Whoever is not picked is as lawful as before.
        #[test]
        fn whatever_became_unlawful_is_suspected(
            before in allowances(), after in allowances(), connections in connections(),
        ) {
            let of = |allowances: Vec<Allowance>| {
                let world = world(&HERE, &[]);
                World { allowances: allowances.into_iter().collect(), ..world }
            };
            let (before, after) = (of(before), of(after));
            let lawful = |world: &World, one: Connection| unlawful(&[one], world).is_empty();
            let Suspects::Picked(picks) = suspects(&before, &after) else { return Ok(()) };
            for one in connections {
                let picked = picks.iter().any(|pick| pick.means(&one));
                prop_assert!(picked || !lawful(&before, one) || lawful(&after, one), "{one:?}");
            }
        }
    }

    #[test]
    fn nobody_is_suspected_where_there_is_only_more_and_all_are_where_more_is_different() {
        let before = world(&HERE, &["a 1 c tcp 8080"]);
        let more = world(&HERE, &["a 1 c tcp 8080", "a 1 b tcp 8081"]);
        assert_eq!(suspects(&before, &more), Suspects::Picked(BTreeSet::new()));
        let port = Some((Protocol::Tcp, 8081));
        let from = |ip: &str| Pick::From(ip.parse().unwrap(), port);
        let from_a = [from("10.255.30.2"), from("10.255.30.3")];
        let of_b = Pick::Marked(Family::V4, 1, port);
        let both = from_a.into_iter().chain([of_b]).collect();
        assert_eq!(suspects(&more, &before), Suspects::Picked(both));
        let elsewhere = world(&HERE, &["a 1 c tcp 8080", "a 1 c tcp 8081"]);
        let leaving = Suspects::Picked(from_a.into());
        assert_eq!(suspects(&elsewhere, &before), leaving, "nothing comes to c here");
        let fewer = world(&HERE[..1], &["a 1 c tcp 8080"]);
        assert_eq!(suspects(&before, &fewer), Suspects::All);
        let many: Vec<_> = (1..=20).map(|mark| format!("far{mark} {mark} b tcp 80")).collect();
        let many = world(&HERE, &many.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(suspects(&many, &before), Suspects::All);
    }

    #[test]
    fn connections_over_both_versions_are_suspected() {
        let containers = [("10.255.30.2", "a"), ("10.255.30.4", "b"), ("fd00:255::4", "b")];
        let dual = |policies: &[&str]| crate::world::tests::dual(&containers, policies);
        let port = Some((Protocol::Tcp, 8080));
        let [four, six] = [Family::V4, Family::V6].map(|family| Pick::Marked(family, 1, port));
        let from = Pick::From("10.255.30.2".parse().unwrap(), port);
        let picks = Suspects::Picked([four, six, from].into());
        assert_eq!(suspects(&dual(&["a 1 b tcp 8080"]), &dual(&[])), picks);
    }
}
