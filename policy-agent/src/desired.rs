//! What the kernel should hold, as a pure function of the world.
//!
//! ```text
//! FORWARD 1 ─► vpa--forward ─► vpa--mark            not from the overlay: mark = tag of the source's app
//!                 │            (every packet, so that a forgotten connection is judged by its true source)
//!                 ├─ established, from the overlay, marked: save the mark with the connection
//!                 ├─ established, to or from the cell's subnet: accept
//!                 ├─ to the subnet ─► vpa--ingress ─► save the mark with the connection
//!                 │                     │             from a mapped port: accept
//!                 │                     ├─► vpa--to-<ip>   (mark, protocol, ports): accept
//!                 │                     └─ refuse
//!                 ├─ from the subnet, out through the VXLAN device, TCP in mid-connection: refuse
//!                 ├─ from the subnet, marked, out through the VXLAN device ─► vpa--egress
//!                 │                     └─► vpa--from-<ip>   (protocol, ports) of any policy of the app: accept
//!                 └─ from the subnet to the overlay: refuse
//! INPUT last ─► vpa--input          from the overlay, marked: established: accept, else refuse
//! ```
//!
//! The whole subnet is refused by default, so a container is shut before anyone knows it exists. What
//! leaves for the world outside the overlay falls through to the networker's own chains.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use netfilter::{
    Action, Builtin, ChainName, ConnectionState, Dialect, Mark, Observed, Place, Plan, RejectWith,
    Rule, Ruleset, Scope, Step, Table,
};
use policy::AppGuid;

use crate::world::{Allowance, Resident, World};

/// All chains of this agent, of any version, begin with this (spec/cell.md §I.2).
const PREFIX: &str = "vpa--";

/// And those that say what may reach one container begin with this.
const DOORS: &str = "vpa--to-";

/// What belongs to the agent in the kernel.
pub(crate) fn scope() -> Scope {
    Scope::prefix(PREFIX)
}

/// The chain everything begins in.
pub(crate) fn entrance() -> ChainName {
    ChainName::owned("vpa", "forward")
}

/// Whether rules of ours in the kernel are about any container.
pub(crate) fn speaks_of_containers(observed: &Observed) -> bool {
    let marks = observed.rules(Table::Filter, ChainName::owned("vpa", "mark").as_str());
    marks.is_some_and(|rules| !rules.is_empty())
        || observed.chains(Table::Filter).any(|chain| chain.starts_with(DOORS))
}

/// What of a former life's rules must change even while nothing is known to put in their place: what
/// is said about an address must be about the app that has it now, or the next container there would
/// be taken for the one before (spec/cell.md §I.23); and the way into the rules must stand.
pub(crate) fn stale(observed: &Observed, residents: &BTreeSet<Resident>, dialect: Dialect) -> Plan {
    let rules = |chain: &str| observed.rules(Table::Filter, chain).unwrap_or_default();
    let mark = ChainName::owned("vpa", "mark").to_string();
    let true_marks: Vec<String> =
        residents.iter().map(|r| about(&marking(r, 0).to_string())).collect();
    let foreign = |rule: &&String| !true_marks.contains(&about(rule));
    let mut steps: Vec<_> = rules(&mark)
        .iter()
        .filter(foreign)
        .map(|rule| Step::Delete(mark.clone(), rule.clone()))
        .collect();

    let doors: BTreeMap<_, _> = residents.iter().map(|r| (door(r.ip), admits(&r.app))).collect();
    let lawful = |chain: &ChainName| {
        let ending = doors.get(chain);
        ending.is_some_and(|ending| rules(chain.as_str()).iter().all(|rule| rule.ends_with(ending)))
    };
    let standing = observed.chains(Table::Filter).filter(|chain| chain.starts_with(DOORS));
    let standing = standing.filter_map(|chain| chain.parse::<ChainName>().ok());
    let ajar = standing.filter(|chain| !rules(chain.as_str()).is_empty() && !lawful(chain));
    steps.extend(ajar.map(|chain| Step::Declare(chain.to_string())));

    let (parent, way_in) = (Builtin::Forward.to_string(), jump(&entrance()).to_string());
    if rules(&parent).first() != Some(&way_in) {
        steps.push(Step::Prepend(parent, way_in));
    }
    Plan::of(dialect, Table::Filter, steps)
}

/// A rule that marks, without the mark.
fn about(rule: &str) -> String {
    rule.split(" --set-xmark").next().unwrap_or_default().to_owned()
}

/// How every rule ends that lets packets in to containers of `app`.
fn admits(app: &AppGuid) -> String {
    let rule = Rule::new(Action::Accept).comment(&format!("_dst:{app}")).to_string();
    rule.trim_start_matches("-m comment --comment \"").to_owned()
}

/// The rules that enforce the world.
pub(crate) fn ruleset(world: &World) -> Ruleset {
    let [mark, ingress, egress] =
        ["mark", "ingress", "egress"].map(|owner| ChainName::owned("vpa", owner));
    let mut rules = Ruleset::new();
    rules.hook(Table::Filter, Builtin::Forward, Place::First, jump(&entrance()));
    rules.chain(Table::Filter, entrance(), forward(world, &mark, &ingress, &egress));
    let input = ChainName::owned("vpa", "input");
    // Cells speak to each other unmarked; what is marked comes from a container of another cell.
    let of_containers = jump(&input).in_through(&world.vtep).marked();
    rules.hook(Table::Filter, Builtin::Input, Place::Last, of_containers);
    rules.chain(Table::Filter, input, std::iter::once(established()).chain(refuse()).collect());
    rules.chain(Table::Filter, mark, marks(world));
    let departures = departures(world, &mut rules);
    rules.chain(Table::Filter, egress, departures);
    let arrivals = arrivals(world, &mut rules);
    rules.chain(Table::Filter, ingress, arrivals);
    rules
}

/// The chain of each container that may send to other cells; the rules that lead to them.
fn departures(world: &World, rules: &mut Ruleset) -> Vec<Rule> {
    let mut dispatch = Vec::new();
    for resident in &world.residents {
        let sendable = world.sendable_by(&resident.app);
        if !sendable.is_empty() {
            let chain = way_out(resident.ip);
            dispatch.push(jump(&chain).from(resident.ip));
            let send = |(protocol, ports)| Rule::new(Action::Accept).ports(protocol, ports);
            rules.chain(Table::Filter, chain, sendable.into_iter().map(send).collect());
        }
    }
    dispatch
}

/// The chain of each container that something may reach; the rules that lead to them, and what comes
/// before and after.
fn arrivals(world: &World, rules: &mut Ruleset) -> Vec<Rule> {
    let mut dispatch = ingress_head(world);
    for resident in &world.residents {
        let allowed: Vec<_> = world.allowed_to(&resident.app).map(allow).collect();
        if !allowed.is_empty() {
            let chain = door(resident.ip);
            dispatch.push(jump(&chain).to(resident.ip));
            rules.chain(Table::Filter, chain, allowed);
        }
    }
    dispatch.extend(refuse());
    dispatch
}

fn jump(chain: &ChainName) -> Rule {
    Rule::new(Action::Jump(chain.clone()))
}

fn established() -> Rule {
    Rule::new(Action::Accept).state(ConnectionState::RelatedOrEstablished)
}

fn refuse() -> [Rule; 2] {
    Rule::reject(|rule| rule)
}

fn forward(world: &World, mark: &ChainName, ingress: &ChainName, egress: &ChainName) -> Vec<Rule> {
    let ours = addresses(world);
    let mut rules = vec![jump(mark).not_in_through(&world.vtep)];
    // Who answers is told by the mark as well; the cell that asks does not know the address.
    let answer = |net: &Ipv4Net| {
        let from_overlay = Rule::new(Action::SaveMark).to(*net).in_through(&world.vtep);
        from_overlay.state(ConnectionState::RelatedOrEstablished).marked()
    };
    rules.extend(ours.iter().map(answer));
    rules.extend(ours.iter().flat_map(|net| [established().to(*net), established().from(*net)]));
    rules.extend(ours.iter().map(|net| jump(ingress).to(*net)));
    let to_overlay = |net: &Ipv4Net| {
        let through = |action| Rule::new(action).from(*net).out_through(&world.vtep);
        // Of a connection that was forgotten because nothing allows it any more, the next packet may be
        // an answer. Let out, it would be remembered as the first of a connection the other way, and
        // everything after it would pass as established, here and at the other end. TCP can be told by
        // its flags; UDP by its port, which is none that a policy of this app speaks of.
        let strays = through(Action::Reject(RejectWith::TcpReset)).midway();
        let allowed = through(Action::Jump(egress.clone())).marked();
        let refused = Rule::reject(|rule| rule.from(*net).to(world.subnet.overlay));
        [strays, allowed].into_iter().chain(refused)
    };
    rules.extend(ours.iter().flat_map(to_overlay));
    rules
}

/// The cell's block, and containers some other plugin gave an address outside of it.
fn addresses(world: &World) -> BTreeSet<Ipv4Net> {
    let outside = world.residents.iter().filter(|r| !world.subnet.block.contains(&r.ip));
    outside.map(|r| Ipv4Net::from(r.ip)).chain([world.subnet.block]).collect()
}

fn marks(world: &World) -> Vec<Rule> {
    let mark = |resident: &Resident| Some(marking(resident, world.mark_of(&resident.app)?));
    world.residents.iter().filter_map(mark).collect()
}

fn marking(resident: &Resident, mark: u16) -> Rule {
    let comment = format!("src:{}", resident.app);
    Rule::new(Action::SetMark(mark.into())).from(resident.ip).comment(&comment)
}

/// The chain that says what may reach the container at `ip`.
fn door(ip: Ipv4Addr) -> ChainName {
    ChainName::owned("vpa", &format!("to-{ip}"))
}

/// The chain that says what the container at `ip` may send to other cells. Whom it reaches there is
/// for the other cell to say, which knows the addresses.
fn way_out(ip: Ipv4Addr) -> ChainName {
    ChainName::owned("vpa", &format!("from-{ip}"))
}

fn ingress_head(world: &World) -> Vec<Rule> {
    vec![
        Rule::new(Action::SaveMark).marked(),
        Rule::new(Action::Accept).mark(Mark::exactly(world.ingress_mark)),
    ]
}

fn allow(allowance: &Allowance) -> Rule {
    let Allowance { destination, source, mark, destination_mark: _, protocol, ports } = allowance;
    Rule::new(Action::Accept)
        .ports(*protocol, *ports)
        .mark(Mark::exactly((*mark).into()))
        .comment(&format!("src:{source}_dst:{destination}"))
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
        :vpa--forward
        -A vpa--forward ! -i silk-vtep -j vpa--mark
        -A vpa--forward -d 10.255.30.0/24 -i silk-vtep -m conntrack --ctstate RELATED,ESTABLISHED -m mark ! --mark 0x0 -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff
        -A vpa--forward -d 10.255.30.0/24 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        -A vpa--forward -s 10.255.30.0/24 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        -A vpa--forward -d 10.255.30.0/24 -j vpa--ingress
        -A vpa--forward -s 10.255.30.0/24 -o silk-vtep -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j REJECT --reject-with tcp-reset
        -A vpa--forward -s 10.255.30.0/24 -o silk-vtep -m mark ! --mark 0x0 -j vpa--egress
        -A vpa--forward -s 10.255.30.0/24 -d 10.255.0.0/16 -p tcp -j REJECT --reject-with tcp-reset
        -A vpa--forward -s 10.255.30.0/24 -d 10.255.0.0/16 -j REJECT --reject-with icmp-port-unreachable
        :vpa--ingress
        -A vpa--ingress -m mark ! --mark 0x0 -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff
        -A vpa--ingress -m mark --mark 0xffff0000 -j ACCEPT
        -A vpa--ingress -p tcp -j REJECT --reject-with tcp-reset
        -A vpa--ingress -j REJECT --reject-with icmp-port-unreachable
        :vpa--input
        -A vpa--input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        -A vpa--input -p tcp -j REJECT --reject-with tcp-reset
        -A vpa--input -j REJECT --reject-with icmp-port-unreachable
        :vpa--mark
        ");
    }

    #[test]
    fn a_policy_marks_its_source_and_opens_its_destination() {
        let world = world(
            &[("10.255.30.2", "web"), ("10.255.30.3", "db"), ("10.255.30.4", "db")],
            &["web 1 db tcp 8080", "far 9 web udp 53-54", "web 1 far tcp 1"],
        );
        let all = ruleset(&world).to_string();
        let of_containers: Vec<_> = all
            .lines()
            .filter(|line| line.contains("10.255.30.") && !line.contains("/24"))
            .collect();
        insta::assert_snapshot!(of_containers.join("\n"), @r#"
        -A vpa--egress -s 10.255.30.2/32 -j vpa--from-10.255.30.2
        :vpa--from-10.255.30.2
        -A vpa--from-10.255.30.2 -p tcp -m tcp --dport 1 -j ACCEPT
        -A vpa--from-10.255.30.2 -p tcp -m tcp --dport 8080 -j ACCEPT
        -A vpa--ingress -d 10.255.30.2/32 -j vpa--to-10.255.30.2
        -A vpa--ingress -d 10.255.30.3/32 -j vpa--to-10.255.30.3
        -A vpa--ingress -d 10.255.30.4/32 -j vpa--to-10.255.30.4
        -A vpa--mark -s 10.255.30.2/32 -m comment --comment "src:web" -j MARK --set-xmark 0x1/0xffffffff
        :vpa--to-10.255.30.2
        -A vpa--to-10.255.30.2 -p udp -m udp --dport 53:54 -m mark --mark 0x9 -m comment --comment "src:far_dst:web" -j ACCEPT
        :vpa--to-10.255.30.3
        -A vpa--to-10.255.30.3 -p tcp -m tcp --dport 8080 -m mark --mark 0x1 -m comment --comment "src:web_dst:db" -j ACCEPT
        :vpa--to-10.255.30.4
        -A vpa--to-10.255.30.4 -p tcp -m tcp --dport 8080 -m mark --mark 0x1 -m comment --comment "src:web_dst:db" -j ACCEPT
        "#);
    }

    #[test]
    fn a_container_outside_the_block_is_refused_by_default_too() {
        let all = ruleset(&world(&[("192.168.7.7", "web")], &[])).to_string();
        assert!(all.contains("-A vpa--forward -d 192.168.7.7/32 -j vpa--ingress"), "{all}");
    }
}
