//! What the kernel should hold, as a pure function of the world.
//!
//! ```text
//! FORWARD 1 ─► vpa--forward ─► mark = vpa--tags[source]    unless it came over the overlay
//!                 │            (every packet, so that a forgotten connection is judged by its true source)
//!                 ├─ established, from the overlay, marked: save the mark with the connection
//!                 ├─ established, to or from the cell's subnet: accept
//!                 ├─ to the subnet ─► vpa--ingress ─► save the mark with the connection
//!                 │                     │             from a mapped port: accept
//!                 │                     ├─► vpa--doors[destination] = vpa--to-<app>
//!                 │                     │             (mark, protocol, port) in the set vpa--to-<app>: accept
//!                 │                     └─ refuse
//!                 ├─ from the subnet, out through the VXLAN device, TCP in mid-connection: refuse
//!                 ├─ from the subnet, marked, out through the VXLAN device ─► vpa--egress
//!                 │                     └─ (mark, protocol, port) in the set vpa--sendable: accept
//!                 └─ from the subnet to the overlay: refuse
//! INPUT last ─► vpa--input          from the overlay, marked: established: accept, else refuse
//! ```
//!
//! Where containers have second addresses, of IPv6, the network of these is treated as the subnet is: its
//! containers here are in the maps, so policies between apps of this cell hold for them as well. The overlay
//! carries IPv4 alone, so what is for a container of another cell is refused as what is for nobody.
//!
//! Two maps and one set per app say everything that changes, so a packet costs the same whatever there
//! is of apps, instances and policies, and a change is a change of elements: one of a set for a policy,
//! one of each map for a container ([`netfilter`] makes trees of chains of them where there are none).
//!
//! The whole subnet is refused by default, so a container is shut before anyone knows it exists. What
//! leaves for the world outside the overlay falls through to the networker's own chains. What a packet
//! comes to is said once more, as a function, in [`crate::model`].

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use netfilter::{
    Action, Builtin, ChainName, ConnectionState, MapBody, MapName, Mark, Place, RejectWith, Rule,
    Ruleset, Scope, SetBody, SetName, Side, Table,
};
use policy::AppGuid;

use crate::{
    denied::{self, Reason},
    lists::Lists,
    masquerade,
    world::World,
};

/// All chains and sets of this agent, of any version, begin with this (spec/cell.md §I.2).
const PREFIX: &str = "vpa--";

/// And the chains that say what may reach one app begin with this.
pub(crate) const DOORS: &str = "vpa--to-";

/// What belongs to the agent in the kernel. The chain by which the agent of 2016 masqueraded goes when
/// nobody needs it ([`crate::masquerade`]).
pub(crate) fn scope() -> Scope {
    Scope::prefix(PREFIX).but(masquerade::PREFIX)
}

/// The chain everything begins in.
pub(crate) fn entrance() -> ChainName {
    ours("forward")
}

/// The mark of what an address of this cell sends.
pub(crate) fn tags() -> MapName {
    ours("tags")
}

/// The chain that is about an address of this cell: there is one for every container with an identity,
/// so this is also what tells whose an address was when the kernel was last written to.
pub(crate) fn doors() -> MapName {
    ours("doors")
}

/// What may leave for other cells.
fn sendable() -> SetName {
    ours("sendable")
}

/// What may leave for other cells although nothing allows it any more.
fn still_sendable() -> SetName {
    ours("still-sendable")
}

/// The set of what may reach containers of `app` although nothing allows it any more.
fn still_admitted(app: &AppGuid) -> SetName {
    ours(&format!("still-{}", plain(app)))
}

/// The chain that says what may reach containers of `app`, and the set it asks.
pub(crate) fn door(app: &AppGuid) -> ChainName {
    ours(&format!("to-{}", plain(app)))
}

/// The name of `app` without dots, which are left to the chains a set may be made of.
fn plain(app: &AppGuid) -> String {
    app.as_str().replace('%', "%25").replace('.', "%2e")
}

fn ours(owner: &str) -> ChainName {
    ChainName::owned("vpa", owner)
}

/// The rules that enforce the world.
pub(crate) fn ruleset(world: &World) -> Ruleset {
    with_lists(world, &Lists::of(world))
}

/// What is left of it in a firewall that is not written any more, in front of what the networker has there
/// for its containers: whatever goes to containers of this cell, or from them to others, is for the
/// firewall that is written to decide.
pub(crate) fn aside(world: &World) -> Ruleset {
    let mut rules = Ruleset::new();
    let nets = world.addresses().into_iter();
    let pass = nets.flat_map(|net| {
        [accept().to(net), accept().from(net).to(world.subnet.overlay)].into_iter()
    });
    let pass = pass.chain(world.second_network.map(|net| accept().to(net)));
    rules.chain(Table::Filter, entrance(), pass.collect());
    hook(&mut rules);
    rules
}

/// The same, for whoever has the lists that follow from it.
pub(crate) fn with_lists(world: &World, lists: &Lists) -> Ruleset {
    let mut rules = Ruleset::new();
    let [ingress, egress, input] = ["ingress", "egress", "input"].map(ours);
    hook(&mut rules);
    rules.chain(Table::Filter, entrance(), forward(world, &ingress, &egress));
    rules.chain(Table::Filter, ingress, arrivals(world));
    rules.chain(Table::Filter, egress, departures(world));
    rules.set(sendable(), SetBody::Allow(lists.sendable()));
    if !world.leniency.removed.is_empty() {
        rules.set(still_sendable(), SetBody::Allow(world.still_sendable()));
        let tell = denied::tell(Reason::Removed);
        rules.chain(Table::Filter, ours("removed"), vec![tell, accept()]);
    }
    residents(world, lists, &mut rules);

    // Cells speak to each other unmarked; what is marked comes from a container of another cell.
    let of_containers = jump(&input).in_through(&world.vtep).marked();
    rules.hook(Table::Filter, Builtin::Input, Place::Last, of_containers);
    rules.chain(
        Table::Filter,
        input,
        [established(), denied::tell(Reason::Host)]
            .into_iter()
            .chain(Rule::reject(|rule| rule))
            .collect(),
    );
    rules
}

/// The way into the rules.
pub(crate) fn hook(rules: &mut Ruleset) {
    rules.hook(Table::Filter, Builtin::Forward, Place::First, jump(&entrance()));
}

/// What is said of each container: its mark and its door; and of each app, what its doors let in.
fn residents(world: &World, lists: &Lists, rules: &mut Ruleset) {
    let of_apps: BTreeMap<_, _> = world.apps().into_iter().map(|app| (app, door(app))).collect();
    let (mut to_chains, mut to_marks) = (BTreeMap::new(), BTreeMap::new());
    for resident in &world.residents {
        to_chains.insert(resident.ip, of_apps[&resident.app].clone());
        // Who is no source of any policy bears no mark, whatever somebody else has put there.
        to_marks.insert(resident.ip, world.mark_of(&resident.app).map_or(0, u32::from));
    }
    rules.map(doors(), MapBody::Doors(to_chains));
    rules.map(tags(), MapBody::Tags(to_marks));
    let told = ours("admit");
    if let Some(rate) = world.told_accepted {
        let tell = denied::tell_at_most(rate, Reason::Policy);
        rules.chain(Table::Filter, told.clone(), vec![tell, accept()]);
    }
    for (app, door) in of_apps {
        let let_in = if world.told_accepted.is_some() { jump(&told) } else { accept() };
        let admit = let_in.allowed_by(&door).comment(&format!("dst:{app}"));
        rules.set(door.clone(), SetBody::Allow(lists.admitted_to(app)));
        let mut let_in = vec![admit];
        let still_admits = world.still_admitted_to(app);
        if !still_admits.is_empty() {
            let still = still_admitted(app);
            let_in.push(jump(&ours("removed")).allowed_by(&still));
            rules.set(still, SetBody::Allow(still_admits));
        }
        rules.chain(Table::Filter, door, let_in);
    }
}

fn accept() -> Rule {
    Rule::new(Action::Accept)
}

fn jump(chain: &ChainName) -> Rule {
    Rule::new(Action::Jump(chain.clone()))
}

fn established() -> Rule {
    accept().state(ConnectionState::RelatedOrEstablished)
}

/// Tells of what `like` matches, which no policy allows, and refuses it by `refusal`; or lets it through
/// where that is only watched.
fn end(
    world: &World,
    reason: Reason,
    like: impl Fn(Rule) -> Rule,
    refusal: impl IntoIterator<Item = Rule>,
) -> Vec<Rule> {
    if world.leniency.no_policy {
        return vec![like(denied::tell(reason.watched())), like(accept())];
    }
    std::iter::once(like(denied::tell(reason))).chain(refusal).collect()
}

fn forward(world: &World, ingress: &ChainName, egress: &ChainName) -> Vec<Rule> {
    let here = world.addresses();
    let mark = Rule::new(Action::MarkFrom(tags(), Side::Source)).not_in_through(&world.vtep);
    let mut rules = vec![mark];
    // Who answers is told by the mark as well; the cell that asks does not know the address.
    let answer = |net: &Ipv4Net| {
        let from_overlay = Rule::new(Action::SaveMark).to(*net).in_through(&world.vtep);
        from_overlay.state(ConnectionState::RelatedOrEstablished).marked()
    };
    rules.extend(here.iter().map(answer));
    let second = world.second_network;
    if world.policies_disabled {
        rules.push(accept().from(world.subnet.overlay).to(world.subnet.overlay));
        rules.extend(second.map(|net| accept().from(net).to(net)));
    }
    rules.extend(here.iter().flat_map(|net| [established().to(*net), established().from(*net)]));
    rules.extend(
        second.into_iter().flat_map(|net| [established().to(net), established().from(net)]),
    );
    rules.extend(here.iter().map(|net| jump(ingress).to(*net)));
    rules.extend(second.map(|net| jump(ingress).to(net)));
    let to_overlay = |net: &Ipv4Net| {
        let through = |rule: Rule| rule.from(*net).out_through(&world.vtep);
        // Of a connection that was forgotten because nothing allows it any more, the next packet may be
        // an answer. Let out, it would be remembered as the first of a connection the other way, and
        // everything after it would pass as established, here and at the other end. TCP can be told by
        // its flags; UDP by its port, which is none that a policy of this app speaks of.
        let midway = |rule: Rule| through(rule).midway();
        let reset = midway(Rule::new(Action::Reject(RejectWith::TcpReset)));
        let strays = end(world, Reason::Stray, midway, [reset]);
        let allowed = through(jump(egress)).marked();
        let to_overlay = |rule: Rule| rule.from(*net).to(world.subnet.overlay);
        let rest = end(world, Reason::NoPolicyOut, to_overlay, Rule::reject(to_overlay));
        strays.into_iter().chain([allowed]).chain(rest)
    };
    rules.extend(here.iter().flat_map(to_overlay));
    rules
}

fn arrivals(world: &World) -> Vec<Rule> {
    let mut rules = vec![
        Rule::new(Action::SaveMark).marked(),
        accept().mark(Mark::exactly(world.ingress_mark)),
        Rule::new(Action::Dispatch(doors(), Side::Destination)),
    ];
    if world.leniency.no_policy {
        // Between containers. The rest of the world is let in nowhere.
        let overlay = world.subnet.overlay;
        let strays = world.addresses().into_iter().filter(|net| !overlay.contains(net));
        let of_net = |net| end(world, Reason::NoPolicy, move |rule: Rule| rule.from(net), []);
        rules.extend(std::iter::once(overlay).chain(strays).flat_map(of_net));
        let of_second = |net| end(world, Reason::NoPolicy, move |rule: Rule| rule.from(net), []);
        rules.extend(world.second_network.into_iter().flat_map(of_second));
        rules.push(denied::tell(Reason::NoPolicy));
        rules.extend(Rule::reject(|rule| rule));
        return rules;
    }
    rules.extend(end(world, Reason::NoPolicy, |rule| rule, Rule::reject(|rule| rule)));
    rules
}

fn departures(world: &World) -> Vec<Rule> {
    let mut rules = vec![accept().allowed_by(&sendable())];
    if !world.leniency.removed.is_empty() {
        rules.push(jump(&ours("removed")).allowed_by(&still_sendable()));
    }
    // Nothing of IPv6 leaves for other cells, and where each family has rules of its own, a set that
    // nobody asks costs as much as one that is asked.
    if world.second_network.is_some() {
        rules = rules.into_iter().map(|rule| rule.from(Ipv4Net::default())).collect();
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::tests::world;

    #[test]
    fn a_cell_without_containers_refuses_its_whole_subnet() {
        insta::assert_snapshot!(ruleset(&world(&[], &[])), @r"
        *filter
        -A FORWARD -j vpa--forward
        -A INPUT -i silk-vtep -m mark ! --mark 0x0 -j vpa--input
        :vpa--egress
        -A vpa--egress -m set --match-set vpa--sendable mark,port -j ACCEPT
        :vpa--forward
        -A vpa--forward ! -i silk-vtep -j MARK --map-set vpa--tags src
        -A vpa--forward -d 10.255.30.0/24 -i silk-vtep -m conntrack --ctstate RELATED,ESTABLISHED -m mark ! --mark 0x0 -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff
        -A vpa--forward -d 10.255.30.0/24 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        -A vpa--forward -s 10.255.30.0/24 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        -A vpa--forward -d 10.255.30.0/24 -j vpa--ingress
        -A vpa--forward -s 10.255.30.0/24 -o silk-vtep -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m limit --limit 100/sec --limit-burst 100 -j NFLOG --nflog-prefix DENY_C2C_STRAY --nflog-group 8722
        -A vpa--forward -s 10.255.30.0/24 -o silk-vtep -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j REJECT --reject-with tcp-reset
        -A vpa--forward -s 10.255.30.0/24 -o silk-vtep -m mark ! --mark 0x0 -j vpa--egress
        -A vpa--forward -s 10.255.30.0/24 -d 10.255.0.0/16 -m limit --limit 100/sec --limit-burst 100 -j NFLOG --nflog-prefix DENY_C2C_OUT --nflog-group 8722
        -A vpa--forward -s 10.255.30.0/24 -d 10.255.0.0/16 -p tcp -j REJECT --reject-with tcp-reset
        -A vpa--forward -s 10.255.30.0/24 -d 10.255.0.0/16 -j REJECT --reject-with icmp-port-unreachable
        :vpa--ingress
        -A vpa--ingress -m mark ! --mark 0x0 -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff
        -A vpa--ingress -m mark --mark 0xffff0000 -j ACCEPT
        -A vpa--ingress -j DISPATCH --map-set vpa--doors dst
        -A vpa--ingress -m limit --limit 100/sec --limit-burst 100 -j NFLOG --nflog-prefix DENY_C2C_IN --nflog-group 8722
        -A vpa--ingress -p tcp -j REJECT --reject-with tcp-reset
        -A vpa--ingress -j REJECT --reject-with icmp-port-unreachable
        :vpa--input
        -A vpa--input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        -A vpa--input -m limit --limit 100/sec --limit-burst 100 -j NFLOG --nflog-prefix DENY_C2C_HOST --nflog-group 8722
        -A vpa--input -p tcp -j REJECT --reject-with tcp-reset
        -A vpa--input -j REJECT --reject-with icmp-port-unreachable
        set vpa--sendable
        map vpa--doors
        map vpa--tags
        ");
    }

    #[test]
    fn policies_are_entries_of_sets_and_containers_of_maps() {
        let world = world(
            &[("10.255.30.2", "web"), ("10.255.30.3", "db"), ("10.255.30.4", "db")],
            &["web 1 db tcp 8080", "far 9 web udp 53-54", "web 1 far tcp 1"],
        );
        let all = ruleset(&world).to_string();
        let about_nets = |line: &str| line.contains("/24") || line.contains("--input");
        let rest: Vec<_> = all.lines().filter(|line| !about_nets(line)).collect();
        insta::assert_snapshot!(rest.join("\n"), @r#"
        *filter
        -A FORWARD -j vpa--forward
        :vpa--egress
        -A vpa--egress -m set --match-set vpa--sendable mark,port -j ACCEPT
        :vpa--forward
        -A vpa--forward ! -i silk-vtep -j MARK --map-set vpa--tags src
        :vpa--ingress
        -A vpa--ingress -m mark ! --mark 0x0 -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff
        -A vpa--ingress -m mark --mark 0xffff0000 -j ACCEPT
        -A vpa--ingress -j DISPATCH --map-set vpa--doors dst
        -A vpa--ingress -m limit --limit 100/sec --limit-burst 100 -j NFLOG --nflog-prefix DENY_C2C_IN --nflog-group 8722
        -A vpa--ingress -p tcp -j REJECT --reject-with tcp-reset
        -A vpa--ingress -j REJECT --reject-with icmp-port-unreachable
        :vpa--to-db
        -A vpa--to-db -m set --match-set vpa--to-db mark,port -m comment --comment "dst:db" -j ACCEPT
        :vpa--to-web
        -A vpa--to-web -m set --match-set vpa--to-web mark,port -m comment --comment "dst:web" -j ACCEPT
        set vpa--sendable
          mark 0x1 tcp 1
          mark 0x1 tcp 8080
        set vpa--to-db
          mark 0x1 tcp 8080
        set vpa--to-web
          mark 0x9 udp 53-54
        map vpa--doors
          10.255.30.2 chain vpa--to-web
          10.255.30.3 chain vpa--to-db
          10.255.30.4 chain vpa--to-db
        map vpa--tags
          10.255.30.2 mark 0x1
          10.255.30.3 mark 0x0
          10.255.30.4 mark 0x0
        "#);
    }

    #[test]
    fn what_a_policy_lets_in_is_told_of_if_it_is_to_be() {
        let mut world = world(&[("10.255.30.3", "db")], &["web 1 db tcp 8080"]);
        assert!(!ruleset(&world).to_string().contains("OK_C2C"));
        world.told_accepted = std::num::NonZeroU32::new(50);
        let all = ruleset(&world).to_string();
        let of_policy: Vec<_> = all.lines().filter(|line| line.contains("admit")).collect();
        insta::assert_snapshot!(of_policy.join("\n"), @r#"
        :vpa--admit
        -A vpa--admit -m limit --limit 50/sec --limit-burst 50 -j NFLOG --nflog-prefix OK_C2C --nflog-group 8722
        -A vpa--admit -j ACCEPT
        -A vpa--to-db -m set --match-set vpa--to-db mark,port -m comment --comment "dst:db" -j vpa--admit
        "#);
    }

    #[test]
    fn what_no_policy_allows_passes_where_that_is_only_watched() {
        let mut world = world(&[("10.255.30.3", "db")], &[]);
        world.leniency.no_policy = true;
        let all = ruleset(&world).to_string();
        let refused: Vec<_> = all.lines().filter(|line| line.contains("REJECT")).collect();
        let of_the_world =
            |line: &&str| line.starts_with("-A vpa--input") || line.starts_with("-A vpa--ingress");
        assert!(refused.iter().all(of_the_world), "{refused:?}");
        for told in ["IN", "OUT", "STRAY"] {
            assert!(all.contains(&format!("WOULD_DENY_C2C_{told} ")), "{told}: {all}");
        }
        let last: Vec<_> = all.lines().filter(|line| line.starts_with("-A vpa--ingress")).collect();
        insta::assert_snapshot!(last[last.len() - 5..].join("\n"), @r"
        -A vpa--ingress -s 10.255.0.0/16 -m limit --limit 100/sec --limit-burst 100 -j NFLOG --nflog-prefix WOULD_DENY_C2C_IN --nflog-group 8722
        -A vpa--ingress -s 10.255.0.0/16 -j ACCEPT
        -A vpa--ingress -m limit --limit 100/sec --limit-burst 100 -j NFLOG --nflog-prefix DENY_C2C_IN --nflog-group 8722
        -A vpa--ingress -p tcp -j REJECT --reject-with tcp-reset
        -A vpa--ingress -j REJECT --reject-with icmp-port-unreachable
        ");
    }

    #[test]
    fn what_a_removed_policy_allowed_passes_and_is_told_of() {
        let mut world = world(&[("10.255.30.3", "db")], &["web 1 db tcp 80"]);
        let removed = ["web 1 db tcp 8080", "db 2 log udp 53"].map(crate::world::tests::allowance);
        world.leniency.removed = std::sync::Arc::new(removed.into_iter().collect());
        let all = ruleset(&world).to_string();
        let lines: Vec<_> = all.lines().collect();
        let admitted = all.split("set vpa--still-db\n").nth(1).unwrap();
        assert!(admitted.starts_with("  mark 0x1 tcp 8080\n"), "{admitted}");
        let sendable = all.split("set vpa--still-sendable\n").nth(1).unwrap();
        assert!(sendable.starts_with("  mark 0x2 udp 53\n"), "{sendable}");
        for rule in [
            "-A vpa--to-db -m set --match-set vpa--still-db mark,port -j vpa--removed",
            "-A vpa--egress -m set --match-set vpa--still-sendable mark,port -j vpa--removed",
            "-A vpa--removed -j ACCEPT",
        ] {
            assert!(lines.contains(&rule), "{rule}: {all}");
        }
        assert!(all.contains("10.255.30.3 mark 0x2"), "its packets keep their mark: {all}");
    }

    #[test]
    fn where_policies_are_disabled_the_overlay_is_open_and_marks_stay() {
        let containers = [("10.255.30.2", "web"), ("10.255.30.3", "db")];
        let mut world = world(&containers, &["web 1 db tcp 80"]);
        let before = ruleset(&world).to_string();
        world.policies_disabled = true;
        let all = ruleset(&world).to_string();
        let open = "-A vpa--forward -s 10.255.0.0/16 -d 10.255.0.0/16 -j ACCEPT\n";
        assert_eq!(all.replace(open, ""), before);
        let (marked, opened) = (all.find("--map-set vpa--tags"), all.find(open));
        let refused = all.find("-A vpa--forward -d 10.255.30.0/24 -j vpa--ingress");
        assert!(marked < opened && opened < refused, "{all}");
    }

    #[test]
    fn second_addresses_are_shut_and_in_the_maps() {
        let containers = [("10.255.30.2", "web"), ("10.255.30.3", "db")];
        let second = [("fd00:255::2", "web"), ("fd00:255::3", "db")];
        let policies = ["web 1 db tcp 8080"];
        let one = ruleset(&world(&containers, &policies)).to_string();
        let two = ruleset(&crate::world::tests::dual(&[containers, second].concat(), &policies));
        let two = two.to_string();
        let new: Vec<_> = two.lines().filter(|line| !one.lines().any(|old| old == *line)).collect();
        insta::assert_snapshot!(new.join("\n"), @r"
        -A vpa--forward -d fd00:255::/48 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        -A vpa--forward -s fd00:255::/48 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        -A vpa--forward -d fd00:255::/48 -j vpa--ingress
          fd00:255::2 chain vpa--to-web
          fd00:255::3 chain vpa--to-db
          fd00:255::2 mark 0x1
          fd00:255::3 mark 0x0
        ");
        assert!(one.lines().all(|line| two.lines().any(|new| new == line)), "{two}");
    }

    #[test]
    fn apps_whose_names_end_like_a_part_of_a_set_have_doors_of_their_own() {
        let names = ["web", "web.ok", "web%2eok", "web%25"];
        let doors: std::collections::BTreeSet<_> =
            names.iter().map(|name| door(&name.parse().unwrap())).collect();
        assert_eq!(doors.len(), names.len());
        assert!(doors.iter().all(|door| !door.as_str().contains('.')));
    }

    #[test]
    fn a_container_outside_the_block_is_refused_by_default_too() {
        let all = ruleset(&world(&[("192.168.7.7", "web")], &[])).to_string();
        assert!(all.contains("-A vpa--forward -d 192.168.7.7/32 -j vpa--ingress"), "{all}");
    }
}
