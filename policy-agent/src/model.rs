//! What becomes of a packet, said as a function of the world: what [`crate::desired`] says in rules. Each
//! is held to the other by tests, for any world and packet, and explanations are given by this one.

use std::net::IpAddr;

use netfilter::judge::{Packet, State};
use policy::{PortRange, Protocol};

use crate::{
    allowances::{Allowance, Allowances},
    world::World,
};

/// What becomes of a packet that the cell forwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict<'a> {
    pub fate: Fate,
    pub why: Why<'a>,
    /// The mark it leaves with.
    pub mark: u32,
}

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Accepted,
    Refused,
    /// It is no matter of policy: the networker's chains decide.
    Passed,
}

/// Why it ends so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Why<'a> {
    /// Its connection was let in before.
    Established,
    /// It came in through a mapped port of the cell.
    Mapped,
    /// A policy lets it in.
    Policy(&'a Allowance),
    /// Policies of its app are about this port; whom it reaches is for the other cell to say.
    MayLeave,
    /// No policy lets it in, or out.
    NoPolicy,
    /// It is for a container nobody speaks for.
    Nobody,
    /// It belongs to no connection.
    Stray,
    /// A policy let it in that was removed; packets like it are only told of for now.
    Removed,
    /// No policy lets it through, and packets like it are only told of for now.
    Tolerated,
    /// Policies are disabled, and it stays inside the overlay.
    Disabled,
    /// It has nothing to do with the containers here and the overlay.
    Elsewhere,
}

/// What becomes of `packet`.
pub(crate) fn verdict<'a>(world: &'a World, packet: &Packet) -> Verdict<'a> {
    let mark = mark(world, packet);
    let (fate, why) = match judge(world, packet, mark) {
        (Fate::Refused, _) if world.leniency.no_policy && is_of_containers(world, packet) => {
            (Fate::Accepted, Why::Tolerated)
        }
        judged => judged,
    };
    Verdict { fate, why, mark }
}

/// Whether it is from one to another of them, or on the way out: the rest of the world is let in nowhere.
fn is_of_containers(world: &World, packet: &Packet) -> bool {
    let Packet { source, destination, .. } = *packet;
    !world.is_container(destination) || is_within(world, source) || world.is_container(source)
}

/// Whether there are containers, here or on other cells.
fn is_within(world: &World, ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => world.subnet.overlay.contains(&ip),
        IpAddr::V6(_) => world.is_container(ip),
    }
}

/// The mark of a packet: what another cell says, or what is known of the source here.
fn mark(world: &World, packet: &Packet) -> u32 {
    if packet.input.as_ref() == Some(&world.vtep) {
        return packet.mark;
    }
    let known = world.app_at(packet.source);
    known.map_or(packet.mark, |app| world.mark_of(app).map_or(0, u32::from))
}

fn judge<'a>(world: &'a World, packet: &Packet, mark: u32) -> (Fate, Why<'a>) {
    let Packet { source, destination, .. } = *packet;
    let [from_here, to_here] = [source, destination].map(|ip| world.is_container(ip));
    if (from_here || to_here) && packet.state == State::Established {
        return (Fate::Accepted, Why::Established);
    }
    let within = |ip| is_within(world, ip);
    if world.policies_disabled && within(source) && within(destination) {
        return (Fate::Accepted, Why::Disabled);
    }
    if to_here {
        return arrives(world, packet, mark);
    }
    // The overlay carries IPv4 alone.
    if source.is_ipv6() {
        return (Fate::Passed, Why::Elsewhere);
    }
    let leaves = packet.output.as_ref() == Some(&world.vtep);
    if from_here && leaves && packet.transport == Protocol::Tcp.into() && !packet.syn {
        return (Fate::Refused, Why::Stray);
    }
    if from_here && leaves && may_leave(world, &world.allowances, packet, mark) {
        return (Fate::Accepted, Why::MayLeave);
    }
    if from_here && leaves && may_leave(world, &world.leniency.removed, packet, mark) {
        return (Fate::Accepted, Why::Removed);
    }
    if from_here && within(destination) {
        return (Fate::Refused, Why::NoPolicy);
    }
    (Fate::Passed, Why::Elsewhere)
}

fn arrives<'a>(world: &'a World, packet: &Packet, mark: u32) -> (Fate, Why<'a>) {
    if mark == world.ingress_mark {
        return (Fate::Accepted, Why::Mapped);
    }
    let Some(app) = world.app_at(packet.destination) else { return (Fate::Refused, Why::Nobody) };
    let allows =
        |a: &&Allowance| u32::from(a.mark) == mark && is_about(a.protocol, a.ports, packet);
    if let Some(allowance) = world.allowances.to(app).find(allows) {
        return (Fate::Accepted, Why::Policy(allowance));
    }
    match world.leniency.removed.to(app).find(allows) {
        Some(_) => (Fate::Accepted, Why::Removed),
        None => (Fate::Refused, Why::NoPolicy),
    }
}

fn may_leave(world: &World, allowances: &Allowances, packet: &Packet, mark: u32) -> bool {
    let mut allowances = world.apps().into_iter().flat_map(|app| allowances.from(app));
    allowances.any(|a| u32::from(a.mark) == mark && is_about(a.protocol, a.ports, packet))
}

fn is_about(protocol: Protocol, ports: PortRange, packet: &Packet) -> bool {
    packet.transport == protocol.into() && ports.contains(packet.port)
}

#[cfg(test)]
mod tests {
    use netfilter::{
        Builtin, Dialect, FakeKernel, Family, Interface, Kernel, Plan, Rendered, Table, Transport,
        judge::{self, Rulebook},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::{
        desired,
        shadow::Leniency,
        world::tests::{allowance, world},
    };

    const APPS: [&str; 3] = ["web", "db", "log"];
    /// Of the cell, of another cell, of a container outside the block, of the world.
    const ADDRESSES: [&str; 6] =
        ["10.255.30.2", "10.255.30.3", "10.255.30.4", "10.255.31.2", "192.168.7.7", "192.0.2.1"];
    /// Second ones of the cell, of another cell, of the world.
    const SECOND: [&str; 5] =
        ["fd00:255::2", "fd00:255::3", "fd00:255::4", "fd00:255:0:1::2", "2001:db8::1"];

    fn worlds() -> impl Strategy<Value = World> {
        let place = prop::sample::select(vec![
            ADDRESSES[0],
            ADDRESSES[1],
            ADDRESSES[4],
            SECOND[0],
            SECOND[1],
        ]);
        let app = || prop::sample::select(APPS.to_vec());
        let policy = (app(), app(), any::<bool>(), 1u16..6, 0u16..3);
        let policies = |most| prop::collection::vec(policy.clone(), 0..most);
        let residents = prop::collection::btree_map(place, app(), 0..4);
        let seldom = || prop::bool::weighted(0.2);
        let parts = (residents, policies(8), policies(3), seldom(), seldom(), any::<bool>());
        parts.prop_map(|(residents, policies, removed, no_policy, policies_disabled, dual)| {
            let residents = residents.into_iter().filter(|(ip, _)| dual || !SECOND.contains(ip));
            let residents: Vec<_> = residents.collect();
            let text = |(source, destination, tcp, port, more): (&str, &str, bool, u16, u16)| {
                let mark = APPS.iter().position(|app| *app == source).unwrap() + 1;
                let protocol = if tcp { "tcp" } else { "udp" };
                format!("{source} {mark} {destination} {protocol} {port}-{}", port + more)
            };
            let policies: Vec<_> = policies.into_iter().map(text).collect();
            let removed = removed.into_iter().map(text);
            let removed: Allowances = removed.map(|text| allowance(&text)).collect();
            let world = world(&residents, &policies.iter().map(String::as_str).collect::<Vec<_>>());
            let leniency = Leniency { no_policy, removed: removed.into() };
            let second_network = dual.then(|| "fd00:255::/48".parse().unwrap());
            World { leniency, policies_disabled, second_network, ..world }
        })
    }

    fn packets() -> impl Strategy<Value = Packet> {
        let of = |addresses: &[&'static str]| {
            let one = || prop::sample::select(addresses.to_vec());
            (one(), one())
        };
        let ends = prop_oneof![of(&ADDRESSES), of(&SECOND)];
        let interface = || prop::sample::select(vec!["silk-vtep", "eth0", "veth1"]);
        let transport = prop::sample::select(vec![Transport::Tcp, Transport::Udp, Transport::Icmp]);
        let state = prop::sample::select(vec![State::New, State::Established, State::Invalid]);
        let mark = prop::sample::select(vec![0, 1, 2, 3, 4, 0x1_0001, 0xffff_0000]);
        let ends = (ends, interface(), interface());
        (ends, transport, 1u16..10, mark, state, any::<bool>()).prop_map(
            |(((source, destination), input, output), transport, port, mark, state, syn)| Packet {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                transport,
                port,
                icmp: None,
                mark,
                input: Some(input.parse::<Interface>().unwrap()),
                output: Some(output.parse::<Interface>().unwrap()),
                state,
                syn,
            },
        )
    }

    fn fate(judgement: &judge::Judgement) -> Fate {
        match (judgement.verdict, &judgement.by) {
            (judge::Verdict::Accepted, None) => Fate::Passed,
            (judge::Verdict::Accepted, Some(_)) => Fate::Accepted,
            _ => Fate::Refused,
        }
    }

    proptest! {
        /// The rules as they are wanted, the rules as an iptables kernel holds them, and the function
        /// agree on any packet: how it ends, and under which mark.
        #[test]
        fn rules_and_model_agree(world in worlds(), packets in prop::collection::vec(packets(), 24)) {
            let rules = desired::ruleset(&world);
            let wanted = Rulebook::of(&rules);
            let dialect = match world.second_network {
                Some(_) => Dialect::DualIptables,
                None => Dialect::Iptables(Family::V4),
            };
            let mut kernel = FakeKernel::speaking(dialect);
            let observed = kernel.observe().unwrap();
            let plan = Plan::new(&Rendered::new(&rules, dialect), &observed, &desired::scope());
            kernel.commit(&plan).unwrap();
            for packet in &packets {
                let Verdict { fate: expected, mark, .. } = verdict(&world, packet);
                let by_rules = wanted.judge(Table::Filter, Builtin::Forward, packet);
                prop_assert_eq!((fate(&by_rules), by_rules.mark), (expected, mark), "{:?}", packet);
                if packet.source.is_ipv6() && world.second_network.is_none() {
                    continue;
                }
                let by_kernel = kernel.judge(Builtin::Forward, packet).unwrap();
                prop_assert_eq!((fate(&by_kernel), by_kernel.mark), (expected, mark), "{:?}", packet);
                prop_assert_eq!(by_rules.saved_mark, by_kernel.saved_mark);
            }
        }
    }
}
