use std::num::{NonZeroU16, NonZeroU32};

use netfilter::{
    Family, Limit, Plan, Rendered,
    egress::{DenyNetworks, Outbound},
};
use policy::{EgressRule, SecurityGroup};

use super::*;
use crate::groups::answer::tests::{answer, group};

pub fn container(handle: &str, ip: &str, space: &str, workload: &str) -> Container {
    let metadata = serde_json::json!({"space_id": space, "container_workload": workload});
    Container {
        handle: handle.into(),
        ip: ip.parse().unwrap(),
        metadata: metadata.as_object().unwrap().clone(),
    }
}

fn store(containers: Vec<Container>) -> Contents {
    Contents { containers, faults: Vec::new() }
}

pub fn manner() -> Manner {
    Manner {
        deny: DenyNetworks::default(),
        vtep_port: NonZeroU16::new(4789).expect("is not zero"),
        told: false,
        denied_per_second: NonZeroU32::MIN,
        accepted_per_second: NonZeroU32::MIN,
        outbound: None,
    }
}

/// A cell on which nothing special holds.
pub fn cell(dialect: Dialect, second_network: Option<Ipv6Net>) -> Cell {
    Cell { manner: manner(), second_network, dialect }
}

/// A cell whose containers have one address each.
fn with(manner: &Manner) -> Cell {
    Cell { manner: manner.clone(), ..cell(Dialect::Iptables(Family::V4), None) }
}

/// A container that may send this and nothing else.
pub fn governed(ip: &str, allowed: Vec<EgressRule>) -> Governed {
    let permissions = allowed.into_iter().collect();
    let group = Shared { chain: shared::name("group"), name: "group".into(), permissions };
    let (ip, groups) = (ip.parse().unwrap(), vec![Arc::new(group)]);
    Governed { ip, second: None, groups, denied: Vec::new(), watched: false }
}

fn observed(chains: &[&str]) -> Observed {
    let lines: String = chains.iter().map(|chain| format!(":{chain} - [0:0]\n")).collect();
    Observed::parse(&format!("*filter\n{lines}COMMIT\n")).unwrap()
}

fn running(address: &str) -> SecurityGroup {
    SecurityGroup { running_default: true, ..group(address) }
}

#[test]
fn a_containers_chain_denies_then_allows_then_refuses() {
    let web = container("web", "10.255.30.2", "a", "app");
    let deny = DenyNetworks {
        always: vec!["169.254.0.0/16".parse().unwrap()],
        running: vec!["10.9.0.0/16".parse().unwrap()],
        staging: vec!["10.8.0.0/16".parse().unwrap()],
    };
    let manner = Manner { deny, ..manner() };
    let twice = SecurityGroup { guid: "again".into(), ..running("10.0.0.1") };
    let answer = answer(&["a"], vec![running("10.0.0.1"), twice]);
    let there = observed(&["netout--web"]);
    let wanted =
        wanted(&store(vec![web]), Some(&answer), &with(&manner), false, &there, Sweep::All);
    insta::assert_snapshot!(wanted.rules, @r"
    *filter
    -A netout--web -j asg-web
    :asg--869f89c966
    -A asg--869f89c966 -p tcp -m iprange --dst-range 10.0.0.1-10.0.0.1 -m tcp --dport 80 -j ACCEPT
    :asg--b4c9e14061
    -A asg--b4c9e14061 -p tcp -m iprange --dst-range 10.0.0.1-10.0.0.1 -m tcp --dport 80 -j ACCEPT
    :asg-web
    -A asg-web -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    -A asg-web -p tcp -m conntrack --ctstate INVALID -j DROP
    -A asg-web -p udp -m udp --dport 4789 -j REJECT --reject-with icmp-port-unreachable
    -A asg-web -d 10.9.0.0/16 -j REJECT --reject-with icmp-port-unreachable
    -A asg-web -d 169.254.0.0/16 -j REJECT --reject-with icmp-port-unreachable
    -A asg-web -j asg--869f89c966
    -A asg-web -j asg--b4c9e14061
    -A asg-web -p tcp -j REJECT --reject-with tcp-reset
    -A asg-web -j REJECT --reject-with icmp-port-unreachable
    ");
}

fn standings(containers: &[Container], answer: Option<&Answer>, chains: &[&str]) -> Vec<String> {
    let store = store(containers.to_vec());
    let wanted = wanted(&store, answer, &with(&manner()), false, &observed(chains), Sweep::All);
    let text = |(handle, standing): (&String, &Standing)| match standing {
        Standing::Enforced => format!("{handle}: enforced"),
        Standing::Unknown => format!("{handle}: unknown"),
        Standing::Kept(why) | Standing::Unplaced(why) => format!("{handle}: {why}"),
    };
    wanted.standings.iter().map(text).collect()
}

#[test]
fn a_container_of_which_nothing_is_known_keeps_what_it_has() {
    let all = [
        container("a", "10.255.30.2", "a", "app"),
        container("b", "10.255.30.3", "b", "app"),
        container("c", "10.255.30.4", "", "app"),
        container("d", "10.255.30.5", "b", "check"),
        container("e", "10.255.30.6", "a", "task"),
    ];
    let chains = ["netout--a", "netout--b", "netout--c", "netout--d"];
    let known = answer(&["a"], vec![]);
    assert_eq!(
        standings(&all, Some(&known), &chains),
        ["a: enforced", "b: unknown", "c: enforced", "d: enforced", "e: it has no chain netout--e"]
    );
    assert_eq!(standings(&all[..1], None, &chains), ["a: unknown"]);
    let bad = SecurityGroup { rules: "[{}]".into(), ..running("x") };
    let bad = answer(&["a", "b"], vec![bad]);
    let kept = &standings(&all[..1], Some(&bad), &chains)[0];
    assert!(kept.contains("destination of rule 1"), "{kept}");
}

#[test]
fn a_second_address_is_governed_where_the_networker_has_a_chain_for_it() {
    let dual = |handle: &str, ip, second: &str| {
        let mut container = container(handle, ip, "a", "app");
        container.metadata.insert(containers::IPV6.to_owned(), second.into());
        container
    };
    let all = store(vec![
        dual("two", "10.255.30.2", "fd00:255::2"),
        dual("late", "10.255.30.3", "fd00:255::3"),
        container("one", "10.255.30.4", "a", "app"),
    ]);
    let mut kernel = netfilter::FakeKernel::speaking(Dialect::DualIptables);
    let mut there = Ruleset::new();
    for handle in ["two", "one"] {
        there.chain(Table::Filter, egress::netout_chain(handle), Vec::new());
    }
    use netfilter::Kernel;
    kernel.settle(&there, &Scope::prefix("netout--")).unwrap();
    let late = Rule::new(Action::Drop);
    let late = Plan::of(
        Dialect::DualIptables,
        Table::Filter,
        vec![
            netfilter::Step::Declare("netout--late".into()),
            netfilter::Step::Append("netout--late".into(), late.to_string()),
        ],
    );
    kernel.commit(&late).unwrap();
    let cell = cell(Dialect::DualIptables, Some("fd00:255::/48".parse().unwrap()));
    let answer = answer(&["a"], vec![running("2001:db8::1"), running("10.0.0.1")]);
    let observed = kernel.observe().unwrap();
    let wanted = wanted(&all, Some(&answer), &cell, false, &observed, Sweep::All);
    let placed = |handle: &str| wanted.standings[handle] == Standing::Enforced;
    assert!(placed("one") && placed("two") && !placed("late"));
    kernel.settle(&wanted.rules, &wanted.scope).unwrap();
    let first = |table, chain: &str| kernel.state.rules(table, chain).unwrap().first().cloned();
    let jump = Some("-j asg-two".to_owned());
    assert_eq!(first(Table::Filter, "netout--two"), jump);
    assert_eq!(first(Table::Filter6, "netout--two"), jump);
    let jump = Some("-s 10.255.30.4/32 -j asg-one".to_owned());
    assert_eq!(first(Table::Filter, "netout--one"), jump);
    assert_eq!(first(Table::Filter6, "netout--one"), None);
    let groups = wanted.governed[0].groups.iter().map(|group| group.chain.as_str());
    let of = |table| {
        let rules = groups.clone().flat_map(|chain| kernel.state.rules(table, chain).unwrap());
        rules.map(String::as_str).collect::<Vec<_>>()
    };
    let range =
        |ip: &str| format!("-p tcp -m iprange --dst-range {ip}-{ip} -m tcp --dport 80 -j ACCEPT");
    assert_eq!(of(Table::Filter), [range("10.0.0.1")]);
    assert_eq!(of(Table::Filter6), [range("2001:db8::1")]);
}

#[test]
fn the_chains_of_the_cni_wrapper_are_found_under_their_cut_names() {
    let handle = "3f1c0a52-6d8e-4b7a-5c21-9e04";
    let there = observed(&["netout--3f1c0a52-6d8e-4b7a-5"]);
    assert_eq!(
        parent(handle, &there, &[Table::Filter]).unwrap().as_str(),
        "netout--3f1c0a52-6d8e-4b7a-5"
    );
    let own = egress::netout_chain(handle);
    let there = observed(&["netout--3f1c0a52-6d8e-4b7a-5", own.as_str()]);
    assert_eq!(parent(handle, &there, &[Table::Filter]), Some(own));
    assert_eq!(parent(handle, &observed(&[]), &[Table::Filter]), None);
}

/// Which of these chains a plan would remove.
fn swept(sweep: Sweep<'_>) -> Vec<String> {
    let living =
        [container("a", "10.255.30.2", "a", "app"), container("b", "10.255.30.3", "b", "app")];
    let bad = containers::Fault { handle: "bad".into(), reason: "it has no address".into() };
    let living = Contents { faults: vec![bad], ..store(living.to_vec()) };
    let chains =
        ["asg-a", "asg-b", "asg-bad", "asg-gone", "casg-gone", "netout--a", "vpa--x", "asgard"];
    let (there, known) = (observed(&chains), answer(&["a"], vec![]));
    let wanted = wanted(&living, Some(&known), &with(&manner()), false, &there, sweep);
    let rendered = Rendered::new(&wanted.rules, Dialect::Iptables(Family::V4));
    let plan = Plan::new(&rendered, &there, &wanted.scope);
    let removed = |line: &&str| line.starts_with("-X");
    plan.render().lines().filter(removed).map(|line| line[3..].to_owned()).collect()
}

#[test]
fn what_a_chain_counts_and_tells_by_lives_as_long_as_it_does() {
    use netfilter::{FakeKernel, Kernel};

    let count = |number| NonZeroU32::new(number).unwrap();
    let limit = Limit { per_second: count(10), burst: count(20) };
    let outbound = Some(Outbound { limit, logging: true, dry_run: false });
    let manner = Manner { outbound, told: true, ..manner() };
    let answer = answer(&["a"], vec![running("10.0.0.1")]);
    for dialect in [Dialect::Iptables(Family::V4), Dialect::DualIptables, Dialect::Nft] {
        let cell = Cell { manner: manner.clone(), ..cell(dialect, None) };
        let mut kernel = FakeKernel::speaking(dialect);
        let mut networkers = Ruleset::new();
        networkers.chain(Table::Filter, egress::netout_chain("web"), Vec::new());
        kernel.settle(&networkers, &Scope::prefix("netout--")).unwrap();
        let mut settle = |containers: Vec<Container>| {
            let there = kernel.observe().unwrap();
            let wanted =
                wanted(&store(containers), Some(&answer), &cell, false, &there, Sweep::All);
            kernel.settle(&wanted.rules, &wanted.scope).unwrap();
            let there = kernel.observe().unwrap();
            let names = there.chains(Table::Filter).chain(there.sets());
            names.filter(|name| name.starts_with("asg-")).map(str::to_owned).collect::<Vec<_>>()
        };
        let mut there = settle(vec![container("web", "10.255.30.2", "a", "app")]);
        let shared = there.extract_if(.., |name| shared::owner(name).is_some()).count();
        assert_eq!(shared, 2, "the group, and what is told of all groups");
        there.retain(|name| !name.ends_with("-6"));
        let counted: &[_] = if dialect == Dialect::Nft { &["asg-web--orl"] } else { &[] };
        assert_eq!(there, [&["asg-web", "asg-web--rl-log"], counted].concat());
        assert_eq!(settle(vec![]), [""; 0]);
    }
}

#[test]
fn only_chains_of_the_dead_are_swept_and_only_when_told() {
    assert_eq!(swept(Sweep::None), [""; 0]);
    let gone = BTreeSet::from(["gone".to_owned(), "a".to_owned(), "b".to_owned()]);
    assert_eq!(swept(Sweep::Only(&gone)), ["asg-gone"]);
    assert_eq!(swept(Sweep::All), ["asg-gone", "casg-gone"]);
}
