//! Goldens for both dialects; and trees of chains held to the sets they stand for.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use policy::{PortRange, Protocol};
use proptest::prelude::*;

use super::*;
use crate::{
    Action, Allow, Builtin, ChainName, ConnectionState, FakeKernel, Interface, Kernel, Limit, Log,
    LogPrefix, MapBody, Mark, Nets, Observed, Plan, Rule, Scope, SetBody, Side,
    judge::{Packet, Rulebook},
};

fn name(text: &str) -> ChainName {
    text.parse().unwrap()
}

fn ports(start: u16, end: u16) -> PortRange {
    PortRange::new(start, end).unwrap()
}

/// A cell in short: marks from a map, doors from another, what is allowed from a set.
fn cell(allow: Allow, nets: Nets, tags: &[(IpAddr, u32)], doors: &[IpAddr]) -> Ruleset {
    let accept = Rule::new(Action::Accept).allowed_by(&name("vpa--to-web"));
    cell_that_does(vec![accept], allow, nets, tags, doors)
}

/// The same with another chain that asks what is allowed.
fn cell_that_does(
    door: Vec<Rule>,
    allow: Allow,
    nets: Nets,
    tags: &[(IpAddr, u32)],
    doors: &[IpAddr],
) -> Ruleset {
    let vtep: Interface = "silk-vtep".parse().unwrap();
    let limit = Limit { per_second: 5.try_into().unwrap(), burst: 10.try_into().unwrap() };
    let log = Action::Log(Log { prefix: LogPrefix::new("DENY_C2C_ "), group: Some(5) });
    let forward = vec![
        Rule::new(Action::MarkFrom(name("vpa--tags"), Side::Source)).not_in_through(&vtep),
        Rule::new(Action::Accept).state(ConnectionState::RelatedOrEstablished),
        Rule::new(Action::Dispatch(name("vpa--doors"), Side::Destination)),
        Rule::new(log).in_set(&name("vpa--nets"), Side::Destination).limit(limit),
        Rule::new(Action::Accept)
            .in_set(&name("vpa--nets"), Side::Destination)
            .ports(Protocol::Tcp, ports(1, 9)),
    ];
    let mut wanted = Ruleset::new();
    let jump = Rule::new(Action::Jump(name("vpa--forward")));
    wanted.hook(Table::Filter, Builtin::Forward, Place::First, jump);
    wanted.chain(
        Table::Filter,
        name("vpa--forward"),
        [forward, Rule::reject(|r| r).into()].concat(),
    );
    wanted.chain(Table::Filter, name("vpa--door"), door);
    wanted.set(name("vpa--to-web"), SetBody::Allow(allow));
    wanted.set(name("vpa--nets"), SetBody::Nets(nets));
    wanted.map(name("vpa--tags"), MapBody::Tags(tags.iter().copied().collect()));
    let doors = doors.iter().map(|address| (*address, name("vpa--door"))).collect();
    wanted.map(name("vpa--doors"), MapBody::Doors(doors));
    wanted
}

fn small_cell() -> Ruleset {
    let web: IpAddr = "10.255.30.3".parse().unwrap();
    let allow = [(1, Protocol::Tcp, ports(8080, 8080)), (2, Protocol::Udp, ports(53, 54))];
    let nets = ["10.0.0.0/8", "192.168.1.1/32", "2001:db8::/32"].map(|net| net.parse().unwrap());
    cell(allow.into_iter().collect(), nets.into_iter().collect(), &[(web, 1)], &[web])
}

fn said(dialect: Dialect) -> String {
    let plan = Plan::new(
        &Rendered::new(&small_cell(), dialect),
        &Observed::default(),
        &Scope::prefix("vpa--"),
    );
    plan.render()
}

#[test]
fn a_cell_in_the_words_of_iptables() {
    insta::assert_snapshot!(said(Dialect::Iptables(Family::V4)), @r#"
    *filter
    :vpa--door - [0:0]
    :vpa--doors.dst - [0:0]
    :vpa--forward - [0:0]
    :vpa--nets.do-12740779 - [0:0]
    :vpa--nets.dst - [0:0]
    :vpa--nets.dst-12740779 - [0:0]
    :vpa--tags.src - [0:0]
    :vpa--to-web.ok - [0:0]
    -A vpa--door -j vpa--to-web.ok
    -A vpa--doors.dst -d 10.255.30.3/32 -g vpa--door
    -A vpa--forward ! -i silk-vtep -j vpa--tags.src
    -A vpa--forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    -A vpa--forward -j vpa--doors.dst
    -A vpa--forward -j vpa--nets.dst-12740779
    -A vpa--forward -p tcp -m tcp --dport 1:9 -j vpa--nets.dst
    -A vpa--forward -p tcp -j REJECT --reject-with tcp-reset
    -A vpa--forward -j REJECT --reject-with icmp-port-unreachable
    -A vpa--nets.do-12740779 -m limit --limit 5/sec --limit-burst 10 -j NFLOG --nflog-prefix "DENY_C2C_ " --nflog-group 5
    -A vpa--nets.dst -d 10.0.0.0/8 -j ACCEPT
    -A vpa--nets.dst -d 192.168.1.1/32 -j ACCEPT
    -A vpa--nets.dst-12740779 -d 10.0.0.0/8 -g vpa--nets.do-12740779
    -A vpa--nets.dst-12740779 -d 192.168.1.1/32 -g vpa--nets.do-12740779
    -A vpa--tags.src -s 10.255.30.3/32 -j MARK --set-xmark 0x1/0xffffffff
    -A vpa--to-web.ok -p tcp -m tcp --dport 8080 -m mark --mark 0x1 -j ACCEPT
    -A vpa--to-web.ok -p udp -m udp --dport 53:54 -m mark --mark 0x2 -j ACCEPT
    -I FORWARD 1 -j vpa--forward
    COMMIT
    "#);
}

/// Each family's part is what it would be alone, but that nothing of IPv6 is translated.
#[test]
fn both_families_are_said_one_after_the_other() {
    let [four, six] = Family::ALL.map(|family| said(Dialect::Iptables(family)));
    assert_eq!(said(Dialect::DualIptables), format!("{four}{six}"));
}

#[test]
fn the_same_cell_for_ipv6() {
    insta::assert_snapshot!(said(Dialect::Iptables(Family::V6)), @r#"
    *filter
    :vpa--door - [0:0]
    :vpa--doors.dst - [0:0]
    :vpa--forward - [0:0]
    :vpa--nets.do-12740779 - [0:0]
    :vpa--nets.dst - [0:0]
    :vpa--nets.dst-12740779 - [0:0]
    :vpa--tags.src - [0:0]
    :vpa--to-web.ok - [0:0]
    -A vpa--door -j vpa--to-web.ok
    -A vpa--forward ! -i silk-vtep -j vpa--tags.src
    -A vpa--forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    -A vpa--forward -j vpa--doors.dst
    -A vpa--forward -j vpa--nets.dst-12740779
    -A vpa--forward -p tcp -m tcp --dport 1:9 -j vpa--nets.dst
    -A vpa--forward -p tcp -j REJECT --reject-with tcp-reset
    -A vpa--forward -j REJECT --reject-with icmp6-port-unreachable
    -A vpa--nets.do-12740779 -m limit --limit 5/sec --limit-burst 10 -j NFLOG --nflog-prefix "DENY_C2C_ " --nflog-group 5
    -A vpa--nets.dst -d 2001:db8::/32 -j ACCEPT
    -A vpa--nets.dst-12740779 -d 2001:db8::/32 -g vpa--nets.do-12740779
    -A vpa--to-web.ok -p tcp -m tcp --dport 8080 -m mark --mark 0x1 -j ACCEPT
    -A vpa--to-web.ok -p udp -m udp --dport 53:54 -m mark --mark 0x2 -j ACCEPT
    -I FORWARD 1 -j vpa--forward
    COMMIT
    "#);
}

#[test]
fn the_same_cell_in_the_words_of_nftables() {
    insta::assert_snapshot!(said(Dialect::Nft), @r#"
    add table inet netman
    add chain inet netman filter/vpa--door
    flush chain inet netman filter/vpa--door
    add chain inet netman filter/vpa--forward
    flush chain inet netman filter/vpa--forward
    add chain inet netman filter/FORWARD { type filter hook forward priority filter; policy accept; }
    add map inet netman filter/vpa--doors { type ipv4_addr : verdict; }
    add element inet netman filter/vpa--doors { 10.255.30.3 : jump filter/vpa--door }
    add set inet netman vpa--nets { type ipv4_addr . inet_proto; flags interval; }
    add element inet netman vpa--nets { 10.0.0.0/8 . 0-255, 192.168.1.1/32 . 0-255 }
    add set inet netman vpa--nets-6 { type ipv6_addr . inet_proto; flags interval; }
    add element inet netman vpa--nets-6 { 2001:db8::/32 . 0-255 }
    add map inet netman vpa--tags { type ipv4_addr : mark; }
    add element inet netman vpa--tags { 10.255.30.3 : 0x1 }
    add set inet netman vpa--to-web { type mark . inet_proto . inet_service; }
    add element inet netman vpa--to-web { 0x1 . tcp . 8080 }
    add set inet netman vpa--to-web-r { type mark . inet_proto . inet_service; flags interval; }
    add element inet netman vpa--to-web-r { 0x2 . udp . 53-54 }
    add rule inet netman filter/vpa--door meta mark . meta l4proto . th dport @vpa--to-web accept
    add rule inet netman filter/vpa--door meta mark . meta l4proto . th dport @vpa--to-web-r accept
    add rule inet netman filter/vpa--forward iifname != "silk-vtep" meta mark set ip saddr map @vpa--tags
    add rule inet netman filter/vpa--forward ct state established,related accept
    add rule inet netman filter/vpa--forward ip daddr vmap @filter/vpa--doors
    add rule inet netman filter/vpa--forward ip daddr . meta l4proto @vpa--nets limit rate 5/second burst 10 packets log prefix "DENY_C2C_ " group 5
    add rule inet netman filter/vpa--forward ip6 daddr . meta l4proto @vpa--nets-6 limit rate 5/second burst 10 packets log prefix "DENY_C2C_ " group 5
    add rule inet netman filter/vpa--forward tcp dport 1-9 ip daddr . meta l4proto @vpa--nets accept
    add rule inet netman filter/vpa--forward tcp dport 1-9 ip6 daddr . meta l4proto @vpa--nets-6 accept
    add rule inet netman filter/vpa--forward meta l4proto tcp reject with tcp reset
    add rule inet netman filter/vpa--forward reject with icmpx port-unreachable
    insert rule inet netman filter/FORWARD jump filter/vpa--forward
    "#);
}

#[test]
fn no_chain_of_a_tree_is_long_and_a_changed_entry_changes_one() {
    let dialect = Dialect::Iptables(Family::V4);
    let entries = |marks: std::ops::Range<u16>| {
        marks.map(|mark| (mark, Protocol::Tcp, ports(8080, 8080))).collect::<Allow>()
    };
    let addresses: Vec<_> = (0..250u8).map(|n| Ipv4Addr::new(10, 255, 30, n).into()).collect();
    let tags: Vec<_> = addresses.iter().map(|address| (*address, 1)).collect();
    let many = |allow| Rendered::new(&cell(allow, Nets::default(), &tags, &addresses), dialect);
    let before = many(entries(1..50_000));
    assert!(before.chains.values().all(|lines| lines.rules.len() <= 128));
    let addresses = before.chains.iter().filter(|((_, name), _)| name.starts_with("vpa--doors"));
    assert!(addresses.into_iter().all(|(_, lines)| lines.rules.len() <= 16));

    let after = many(entries(1..49_999));
    let changed: Vec<_> = before
        .chains
        .iter()
        .filter(|(name, lines)| after.chains.get(*name) != Some(*lines))
        .collect();
    assert_eq!(changed.len(), 1, "{changed:?}");
}

/// The first rule of each chain that says what is in the set of [`cell`], and how many there are.
fn tree(allow: impl IntoIterator<Item = (u16, Protocol, PortRange)>) -> String {
    let wanted = cell(allow.into_iter().collect(), Nets::default(), &[], &[]);
    let chains = Rendered::new(&wanted, Dialect::Iptables(Family::V4)).chains;
    let of_tree = chains.iter().filter(|((_, name), _)| name.starts_with("vpa--to-web.ok"));
    let told = |lines: &Lines| match &lines.rules[..] {
        rules if rules.len() > 4 => format!("{}\n{} more", rules[0], rules.len() - 1),
        rules => rules.join("\n"),
    };
    of_tree.map(|((_, name), lines)| format!(":{name}\n{}\n", told(lines))).collect()
}

#[test]
fn a_crowd_need_not_say_what_all_of_it_may_reach() {
    let crowd = (0x4000..0x407f).map(|mark| (mark, Protocol::Tcp, ports(8080, 8080)));
    let few = [0xb305, 0xb306].map(|mark| (mark, Protocol::Udp, ports(53, 53)));
    let all = crowd.chain(few).collect::<Vec<_>>();
    insta::assert_snapshot!(tree(all.clone()), @r"
    :vpa--to-web.ok
    -p tcp -m tcp --dport 8080 -m mark --mark 0x4000/0xc000 -g vpa--to-web.ok.1tcp-8080
    -m mark --mark 0x8000/0xc000 -g vpa--to-web.ok.2
    :vpa--to-web.ok.1tcp-8080
    -m mark --mark 0x4000 -j ACCEPT
    126 more
    :vpa--to-web.ok.2
    -p udp -m udp --dport 53 -m mark --mark 0xb305 -j ACCEPT
    -p udp -m udp --dport 53 -m mark --mark 0xb306 -j ACCEPT
    ");
    let and_another = all.into_iter().chain([(0x4007, Protocol::Tcp, ports(80, 90))]);
    insta::assert_snapshot!(tree(and_another), @r"
    :vpa--to-web.ok
    -m mark --mark 0x4000/0xc000 -g vpa--to-web.ok.1
    -m mark --mark 0x8000/0xc000 -g vpa--to-web.ok.2
    :vpa--to-web.ok.1
    -p tcp -m tcp --dport 80:90 -m mark --mark 0x4007 -j ACCEPT
    -p tcp -m tcp --dport 8080 -j vpa--to-web.ok.1tcp-8080
    :vpa--to-web.ok.1tcp-8080
    -m mark --mark 0x4000 -j ACCEPT
    126 more
    :vpa--to-web.ok.2
    -p udp -m udp --dport 53 -m mark --mark 0xb305 -j ACCEPT
    -p udp -m udp --dport 53 -m mark --mark 0xb306 -j ACCEPT
    ");
}

fn allow() -> impl Strategy<Value = Allow> {
    let entry = (any::<u8>(), 0u16..4, any::<bool>(), 1u16..6, 0u16..3);
    let entries = prop::collection::vec(entry, 0..600);
    // One mark that may reach many ports, and its neighbours with it.
    let wide = (0u16..4, 0u16..200).prop_map(|(high, count)| {
        (0..count).map(move |n| (high * 0x1111 + n % 3, Protocol::Tcp, ports(1 + 2 * n, 1 + 2 * n)))
    });
    (entries, wide).prop_map(|(entries, wide)| {
        let said = |(low, high, tcp, start, more): (u8, u16, bool, u16, u16)| {
            let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
            (high * 0x1111 + u16::from(low), protocol, ports(start, start + more))
        };
        entries.into_iter().map(said).chain(wide).collect()
    })
}

/// What is done with what may be reached: plain verdicts stand in the tree, others behind it.
fn found() -> impl Strategy<Value = Rule> {
    let jump = Action::Jump(name("vpa--told"));
    let actions = vec![Action::Accept, Action::Drop, jump, Action::SetMark(7)];
    prop::sample::select(actions).prop_map(Rule::new)
}

/// An address of few bits, so that random ones meet.
fn address() -> impl Strategy<Value = IpAddr> {
    (0u8..3, 0u8..80).prop_map(|(c, d)| Ipv4Addr::new(10, 255, c, d).into())
}

fn nets() -> impl Strategy<Value = Nets> {
    let net = (address(), 20u8..=32).prop_map(|(address, length)| match address {
        IpAddr::V4(address) => IpNet::V4(Ipv4Net::new(address, length).unwrap()),
        IpAddr::V6(_) => unreachable!("addresses are of IPv4 here"),
    });
    prop::collection::vec(net, 0..60).prop_map(|nets| nets.into_iter().collect())
}

fn packets() -> impl Strategy<Value = Vec<Packet>> {
    let packet = (address(), address(), any::<bool>(), 1u16..8, any::<u8>(), 0u32..5);
    let packet = packet.prop_map(|(from, to, tcp, port, low, high)| {
        let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
        Packet::new(from, to, protocol, port).marked(high * 0x1111 + u32::from(low))
    });
    prop::collection::vec(packet, 30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What a tree of chains lets pass, marks and tells is what the sets and maps say.
    #[test]
    fn trees_of_chains_mean_what_the_sets_say(
        allow in allow(),
        found in found(),
        nets in nets(),
        tags in prop::collection::vec((address(), 1u32..0x100), 0..60),
        doors in prop::collection::vec(address(), 0..60),
        packets in packets(),
    ) {
        let marked = Rule::new(Action::Accept).mark(Mark::exactly(7));
        let door = vec![found.allowed_by(&name("vpa--to-web")), marked];
        let mut wanted = cell_that_does(door, allow, nets, &tags, &doors);
        wanted.chain(Table::Filter, name("vpa--told"), vec![Rule::new(Action::Drop)]);
        let mut kernel = FakeKernel::default();
        kernel.settle(&wanted, &Scope::prefix("vpa--")).unwrap();
        let meant = Rulebook::of(&wanted);
        let written = Rulebook::reading(&kernel.state).unwrap();
        for packet in packets {
            let by = |book: &Rulebook| {
                let judgement = book.judge(Table::Filter, Builtin::Forward, &packet);
                (judgement.verdict, judgement.mark, judgement.logged)
            };
            prop_assert_eq!(by(&meant), by(&written), "{:?}", packet);
        }
    }
}

#[test]
fn another_limit_counts_under_another_name_however_short_the_meter_is_called() {
    use crate::{Limit, TooMany, Transport};

    let name = |meter: &str, burst: u32| {
        let count = |number| std::num::NonZeroU32::new(number).unwrap();
        let limit = Limit { per_second: count(10), burst: count(burst) };
        let meter = meter.parse().unwrap();
        let rule = Rule::new(Action::Drop).transport(Transport::Tcp);
        let rule = rule.too_many(TooMany { meter, limit }).to_string();
        let mut words = rule.split(' ').skip_while(|word| *word != "--hashlimit-name");
        words.nth(1).unwrap().to_owned()
    };
    let names = [name("asg-a--orl", 20), name("asg-a--orl", 21), name("asg-b--orl", 20)];
    assert_eq!(names[0], name("asg-a--orl", 20));
    assert!(names.iter().all(|name| name.len() <= 15), "{names:?}");
    assert_eq!(BTreeSet::from(names).len(), 3);
}

const DIALECTS: [Dialect; 4] = [
    Dialect::Iptables(Family::V4),
    Dialect::Iptables(Family::V6),
    Dialect::DualIptables,
    Dialect::Nft,
];

/// Settles a kernel on `first`, then on `second`; whether it took that, or else whether all of the first
/// is there still.
fn settled_after(first: &Ruleset, second: &Ruleset, dialect: Dialect) -> Result<(), String> {
    let mut kernel = FakeKernel::speaking(dialect);
    let scope = Scope::prefix("vpa--");
    kernel.settle(first, &scope).unwrap();
    let before = kernel.state.clone();
    let then = Rendered::new(first, dialect).then(second);
    assert_eq!(then, Rendered::new(second, dialect));
    assert_eq!(then.then(first), Rendered::new(first, dialect));
    match kernel.settle(second, &scope) {
        Ok(_) => Ok(()),
        Err(crate::KernelError::Clash(name)) => {
            assert_eq!(kernel.state, before);
            assert_eq!(Plan::between(&Rendered::new(first, dialect), &then, &scope), None);
            Err(name)
        }
        Err(error) => panic!("{error}"),
    }
}

/// The hashes of these two prefixes in a tree of this name are alike.
#[test]
fn two_parts_of_a_tree_under_one_name_are_not_written() {
    let around = |prefix: &str| {
        let address = |n: u8| format!("{prefix}{:x}:{}", n % 16, n / 16).parse().unwrap();
        (0..32).map(address).collect::<Vec<IpAddr>>()
    };
    let [one, other] = ["2001:db8::a4:41b", "2001:db8::1ec:7a5"].map(around);
    let with = |doors: &[IpAddr]| cell(Allow::default(), Nets::default(), &[], doors);
    for dialect in DIALECTS {
        assert_eq!(settled_after(&small_cell(), &with(&one), dialect), Ok(()));
        let both = settled_after(&with(&one), &with(&[&one[..], &other].concat()), dialect);
        let has_trees_of_them =
            matches!(dialect, Dialect::Iptables(Family::V6) | Dialect::DualIptables);
        let name = "vpa--doors.dst.294b559e5c2d".to_owned();
        assert_eq!(both, if has_trees_of_them { Err(name) } else { Ok(()) }, "{dialect:?}");
    }
}

/// The hashes of these two names are alike.
#[test]
fn what_two_apps_may_be_reached_by_is_not_written_under_one_name() {
    let door = |end: &str| ChainName::owned("vpa", &format!("to-3f1c0a52-6d8e-4b7a-5c21-{end}"));
    let [one, other] = [door("9e00000073be"), door("9e0000012ff2")];
    assert_eq!(one, other);
    let with = |marks: [u16; 2]| {
        let mut wanted = Ruleset::new();
        for (set, mark) in [&one, &other].into_iter().zip(marks) {
            let allow = [(mark, Protocol::Tcp, ports(80, 80))].into_iter().collect();
            wanted.set(set.clone(), SetBody::Allow(allow));
        }
        wanted
    };
    for dialect in DIALECTS {
        assert_eq!(settled_after(&small_cell(), &with([1, 1]), dialect), Ok(()));
        assert_eq!(settled_after(&small_cell(), &with([1, 2]), dialect), Err(one.to_string()));
    }
}

/// Mangle and nat both have it, and a bridge has one.
#[test]
fn what_is_about_the_ports_of_a_bridge_is_led_to_once() {
    let port = "veth1".parse().unwrap();
    let mut wanted = Ruleset::new();
    for table in [Table::Mangle, Table::Nat] {
        let drop = Rule::new(Action::Drop).in_through_bridge_port(&port);
        wanted.chain(table, name("netin--web"), vec![drop]);
        let jump = Rule::new(Action::Jump(name("netin--web")));
        wanted.hook(table, Builtin::Prerouting, Place::Last, jump);
    }
    let rendered = Rendered::new(&wanted, Dialect::Nft);
    let plan = Plan::new(&rendered, &Observed::default(), &Scope::prefix("netin--")).render();
    let jump = "add rule bridge netman bridge/PREROUTING jump bridge/netin--web";
    assert_eq!(plan.lines().filter(|line| *line == jump).count(), 1, "{plan}");
}

/// Sets and maps become chains in the same tables.
#[test]
fn no_tree_is_written_over_another_or_over_a_chain() {
    let allowed = |wanted: &mut Ruleset, from: &str, set: &str, action: Action| {
        let rule = Rule::new(action).allowed_by(&name(set));
        wanted.chain(Table::Filter, name(from), vec![rule]);
        let allow = [(1, Protocol::Tcp, ports(80, 80))].into_iter().collect();
        wanted.set(name(set), SetBody::Allow(allow));
    };
    let mut wanted = Ruleset::new();
    allowed(&mut wanted, "vpa--a", "vpa--to-web", Action::Accept);
    allowed(&mut wanted, "vpa--b", "vpa--to-web", Action::Accept);
    allowed(&mut wanted, "vpa--c", "vpa--to-web", Action::Drop);
    for dialect in DIALECTS {
        assert_eq!(settled_after(&small_cell(), &wanted, dialect), Ok(()), "{dialect:?}");
    }
    wanted.chain(Table::Filter, name("vpa--to-web.ok"), vec![Rule::new(Action::Accept)]);
    for dialect in DIALECTS {
        let expected =
            if dialect == Dialect::Nft { Ok(()) } else { Err("vpa--to-web.ok".to_owned()) };
        assert_eq!(settled_after(&small_cell(), &wanted, dialect), expected, "{dialect:?}");
    }
}

#[test]
fn a_part_of_a_tree_is_changed_and_never_written_over_another() {
    let lines = |mark: &str, root: &str| {
        let part = Some((name(root), Part::ROOT));
        Lines { part, ..Lines::of(vec![mark.to_owned()], true) }
    };
    let key = || (Table::Filter, "vpa--x".to_owned());
    let mut book = Book { chains: Chains::new(), clash: Clash::default() };
    book.put(key(), lines("1", "vpa--a"));
    book.put(key(), lines("2", "vpa--a"));
    assert_eq!(book.clash, Clash::default());
    // Not even where both say the same: they may say different things later.
    book.put(key(), lines("2", "vpa--b"));
    assert!(book.clash.check().is_err());
    assert_eq!(*book.chains[&key()], lines("2", "vpa--a"));
}
