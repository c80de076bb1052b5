//! The real kernel, in a network namespace of the test's own: what we write is what we read back, so a
//! second pass has nothing to do, whatever the shape of the rule.
#![allow(clippy::unwrap_used, reason = "a test that cannot set the scene says where")]

use std::{
    net::{IpAddr, UdpSocket},
    num::NonZeroU32,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use netfilter::judge::{Packet, Rulebook, Verdict};
use netfilter::{
    Action, AddressRange, Allow, Backend, Builtin, ChainName, ConnectionState, Element, Engine,
    Family, Firewall, Icmp, Interface, Iptables, Kernel, Limit, Log, LogPrefix, MapBody, Mark,
    Nets, Nftables, Place, Plan, RejectWith, Rendered, Rule, Ruleset, Scope, SetBody, Side, Table,
    TooMany, Transport,
};
use nix::sched::{CloneFlags, unshare};
use policy::{PortRange, Protocol};

/// What is only to be waited out is over within this.
const SOON: Duration = Duration::from_secs(60);

/// A kernel to run a story on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Iptables(Engine, Family),
    /// iptables and ip6tables as one.
    Dual(Engine),
    Nftables,
}

impl Which {
    const ALL: [Self; 7] = [
        Self::Iptables(Engine::Nft, Family::V4),
        Self::Iptables(Engine::Nft, Family::V6),
        Self::Iptables(Engine::Legacy, Family::V4),
        Self::Iptables(Engine::Legacy, Family::V6),
        Self::Dual(Engine::Nft),
        Self::Dual(Engine::Legacy),
        Self::Nftables,
    ];

    fn open(self) -> Box<dyn Kernel> {
        match self {
            Self::Iptables(engine, family) => Box::new(Iptables::driving(engine).family(family)),
            Self::Dual(engine) => Box::new(Iptables::driving(engine).dual()),
            Self::Nftables => Box::new(Nftables::open().unwrap()),
        }
    }

    /// Does this by hand, in iptables' words or in nft's.
    fn by_hand(self, iptables: &str, nft: &str) {
        let (program, args) = match self {
            Self::Nftables => ("nft", nft),
            Self::Iptables(Engine::Nft, Family::V4) | Self::Dual(Engine::Nft) => {
                ("iptables-nft", iptables)
            }
            Self::Iptables(Engine::Nft, Family::V6) => ("ip6tables-nft", iptables),
            Self::Iptables(Engine::Legacy, Family::V4) | Self::Dual(Engine::Legacy) => {
                ("iptables-legacy", iptables)
            }
            Self::Iptables(Engine::Legacy, Family::V6) => ("ip6tables-legacy", iptables),
        };
        let status = Command::new(program).args(args.split(' ')).status().unwrap();
        assert!(status.success(), "{program} {args}: {status}");
    }
}

/// Runs `test` for each kernel, each time on a thread that has a network of its own; programs it starts
/// share it.
fn on_each_kernel(test: impl Fn(Which, &mut dyn Kernel) + Send + Copy + 'static) {
    for which in Which::ALL {
        let inside = move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root: run scripts/test");
            test(which, &mut *which.open());
        };
        if thread::spawn(inside).join().is_err() {
            panic!("the story fails on {which:?}");
        }
    }
}

fn plan(kernel: &mut dyn Kernel, wanted: &Ruleset) -> Plan {
    let rendered = Rendered::new(wanted, kernel.dialect());
    Plan::new(&rendered, &kernel.observe().unwrap(), &scope())
}

fn settle(kernel: &mut dyn Kernel, wanted: &Ruleset) {
    kernel.settle(wanted, &scope()).unwrap();
}

fn settled(kernel: &mut dyn Kernel, wanted: &Ruleset) {
    let again = plan(kernel, wanted);
    let observed = kernel.observe().unwrap();
    assert!(again.is_empty(), "a second pass would do:\n{}\nof {observed:#?}", again.render());
}

fn chain(name: &str) -> ChainName {
    name.parse().unwrap()
}

fn count(number: u32) -> NonZeroU32 {
    number.try_into().unwrap()
}

/// What marks may reach over TCP: `"mark ports"`.
fn allowed(texts: &[&str]) -> Allow {
    let entry = |text: &&str| {
        let (mark, ports) = text.split_once(' ').unwrap();
        (mark.parse().unwrap(), Protocol::Tcp, ports.parse().unwrap())
    };
    texts.iter().map(entry).collect()
}

/// One rule of every shape the vocabulary can say.
fn every_shape() -> Ruleset {
    every_shape_and(&["1 80", "2 8080-8090", "65535 53"])
}

/// The same, where this is allowed.
fn every_shape_and(allow: &[&str]) -> Ruleset {
    let ip: IpAddr = "10.255.30.3".parse().unwrap();
    let net: IpNet = "10.255.30.0/24".parse().unwrap();
    let vtep: Interface = "silk-vtep".parse().unwrap();
    let range = AddressRange { start: ip, end: "10.255.30.9".parse().unwrap() };
    let accept = || Rule::new(Action::Accept);
    let mut filter = vec![
        Rule::new(Action::Jump(chain("vpa--other"))).not_in_through(&vtep),
        accept().to(net).state(ConnectionState::RelatedOrEstablished),
        Rule::new(Action::Drop).transport(Transport::Tcp).state(ConnectionState::Invalid),
        accept().from(net).out_through(&vtep).marked(),
        accept().to("0.0.0.0/0".parse::<IpNet>().unwrap()).in_through(&vtep),
        Rule::new(Action::Reject(RejectWith::PortUnreachable)).from(ip),
    ];
    filter
        .extend(Rule::reject(|rule| rule.from(net).to("10.255.0.0/16".parse::<IpNet>().unwrap())));
    let other = vec![
        Rule::new(Action::SetMark(1)).from(ip).comment("src:web app"),
        Rule::new(Action::SetMark(0xffff_0000))
            .to(ip)
            .ports(Protocol::Tcp, "61000".parse().unwrap()),
        Rule::new(Action::SaveMark).marked(),
        Rule::new(Action::Drop).not_from(ip).in_through_bridge_port(&vtep),
        Rule::new(Action::Return)
            .from("fe80::/10".parse::<IpNet>().unwrap())
            .icmp_v6(Icmp { kind: 135, code: None })
            .in_through_bridge_port(&vtep),
        Rule::new(Action::Return)
            .from("::/128".parse::<IpNet>().unwrap())
            .icmp_v6(Icmp { kind: 135, code: None })
            .in_through(&vtep),
        Rule::new(Action::Drop)
            .not_from("2001:db8::9/128".parse::<IpNet>().unwrap())
            .in_through_bridge_port(&vtep),
        accept().ports(Protocol::Udp, "1-65535".parse().unwrap()).mark(Mark::exactly(7)),
        accept().ports(Protocol::Tcp, "80-90".parse().unwrap()).to(ip).comment("src:a dst:b"),
        accept().mark(Mark { value: 0xa000, mask: 0xf000 }),
        Rule::new(Action::Reject(RejectWith::TcpReset)).from(ip).out_through(&vtep).midway(),
        accept().to_range(range),
        accept().to_range(range).ports(Protocol::Tcp, "3306".parse().unwrap()),
        accept().to_range(range).icmp(Icmp { kind: 8, code: Some(0) }),
        accept().to_range(range).icmp(Icmp { kind: 8, code: None }),
        accept().to_range(range).icmp(Icmp { kind: 255, code: None }),
        accept().to_range(range).icmp(Icmp { kind: 255, code: Some(255) }),
    ];
    let v6: IpNet = "2001:db8::/32".parse().unwrap();
    let tcp_ports = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let limit = |per_second, burst| Limit { per_second: count(per_second), burst: count(burst) };
    let log = |group| Action::Log(Log { prefix: LogPrefix::new("DENY_C2C_web "), group });
    let words = vec![
        Rule::new(Action::Goto(chain("vpa--other"))).mark(Mark::exactly(3)),
        Rule::new(Action::Return).from_range(range).not_transport(Transport::Udp),
        accept().port_list(Protocol::Tcp, tcp_ports(&["80", "443", "8000-8010"])),
        accept().port_list(
            Protocol::Udp,
            (1..40).map(|n| PortRange::new(n * 9, n * 9).unwrap()).collect(),
        ),
        accept().transport(Transport::Tcp).state(ConnectionState::New),
        Rule::new(Action::Count)
            .state(ConnectionState::Unestablished)
            .not_transport(Transport::Udp),
        Rule::new(log(Some(5))).limit(limit(5, 10)),
        Rule::new(log(Some(5))).limit(limit(2, 5)).comment("a b"),
        Rule::new(Action::Drop)
            .transport(Transport::Tcp)
            .state(ConnectionState::New)
            .too_many(TooMany { meter: chain("vpa--orl-web"), limit: limit(100, 1000) }),
        Rule::new(Action::KeepMark(0xffff)).in_through(&vtep),
        accept().from(v6).ports(Protocol::Tcp, "80".parse().unwrap()),
        accept().icmp_v6(Icmp { kind: 128, code: Some(0) }).to(v6),
        accept().icmp_v6(Icmp { kind: 255, code: None }),
    ];
    let looked_up = vec![
        Rule::new(Action::MarkFrom(chain("vpa--tags"), Side::Source)).not_in_through(&vtep),
        Rule::new(Action::Dispatch(chain("vpa--doors"), Side::Destination)),
        Rule::new(log(Some(5))).in_set(&chain("vpa--nets"), Side::Destination).limit(limit(5, 5)),
        accept()
            .in_set(&chain("vpa--nets"), Side::Source)
            .ports(Protocol::Tcp, "80".parse().unwrap()),
    ];
    let mut wanted = Ruleset::new();
    wanted.chain(Table::Filter, chain("vpa--words"), words);
    wanted.chain(Table::Filter, chain("vpa--looked-up"), looked_up);
    wanted.chain(
        Table::Filter,
        chain("vpa--to-web"),
        vec![accept().allowed_by(&chain("vpa--web"))],
    );
    wanted.set(chain("vpa--web"), SetBody::Allow(allowed(allow)));
    let nets = ["10.0.0.0/8", "11.0.0.0/8", "192.168.1.1/32", "255.255.255.0/24", "2001:db8::/32"];
    let nets: Nets = nets.iter().map(|net| net.parse().unwrap()).collect();
    wanted.set(chain("vpa--nets"), SetBody::Nets(nets));
    wanted.set(chain("vpa--orl-web"), SetBody::Meter { expire: count(10) });
    let addresses = ["10.255.30.3", "10.255.30.4", "2001:db8::3"].map(|a| a.parse().unwrap());
    wanted.map(chain("vpa--tags"), MapBody::Tags(addresses.map(|address| (address, 7)).into()));
    let doors = addresses.map(|address| (address, chain("vpa--to-web")));
    wanted.map(chain("vpa--doors"), MapBody::Doors(doors.into()));
    wanted.chain(Table::Filter, chain("vpa--forward"), filter);
    wanted.chain(Table::Filter, chain("vpa--other"), other);
    let jump = Rule::new(Action::Jump(chain("vpa--forward")));
    wanted.hook(Table::Filter, Builtin::Forward, Place::First, jump);
    let dnat =
        Rule::new(Action::Dnat(ip, 8080)).to(ip).ports(Protocol::Tcp, "61000".parse().unwrap());
    wanted.chain(Table::Nat, chain("vpa--nat"), vec![dnat]);
    let jump = Rule::new(Action::Jump(chain("vpa--nat")));
    wanted.hook(Table::Nat, Builtin::Prerouting, Place::Last, jump);
    let masquerade = Rule::new(Action::Masquerade).from(ip).not_to(net).not_out_through(&vtep);
    wanted.hook(Table::Nat, Builtin::Postrouting, Place::Last, masquerade.comment("netman:web"));
    wanted
}

fn scope() -> Scope {
    Scope::prefix("vpa--").with_comment("netman:web")
}

#[test]
fn every_shape_reads_back_as_written() {
    on_each_kernel(|_, kernel| {
        let wanted = every_shape();
        settle(kernel, &wanted);
        settled(kernel, &wanted);
    });
}

#[test]
fn another_process_knows_what_was_written() {
    on_each_kernel(|which, kernel| {
        let mut wanted = every_shape();
        settle(kernel, &wanted);
        // nft lists ICMP's kinds by name. Whoever did not write them writes them once more.
        let mut other = which.open();
        if which != Which::Nftables {
            settled(&mut *other, &wanted);
        }
        settle(&mut *other, &wanted);
        settled(&mut *other, &wanted);
        wanted.chain(Table::Filter, chain("vpa--new"), Vec::new());
        settle(&mut *other, &wanted);
        settled(&mut *other, &wanted);
    });
}

#[test]
fn any_comment_reads_back_as_written() {
    on_each_kernel(|_, kernel| {
        let everything: String = (0..=255u8).map(char::from).collect();
        let single = (0..128u8).map(|byte| char::from(byte).to_string());
        let long =
            ["src:".repeat(100), "x".repeat(300), "é".repeat(300), "src: -j DROP".to_owned()];
        let comments = single.chain(long).chain([everything, String::new()]);
        let rules = comments.map(|comment| Rule::new(Action::Accept).comment(&comment)).collect();
        let mut wanted = Ruleset::new();
        wanted.chain(Table::Filter, chain("vpa--forward"), rules);
        settle(kernel, &wanted);
        settled(kernel, &wanted);
    });
}

#[test]
fn vandalised_rules_are_put_right_and_others_left_alone() {
    on_each_kernel(|which, kernel| {
        let wanted = every_shape();
        settle(kernel, &wanted);
        let healthy = kernel.observe().unwrap();
        let foreign = match which {
            Which::Iptables(_, Family::V6) => "-s 2001:db8::9/128 -j ACCEPT",
            _ => "-s 192.0.2.1/32 -j ACCEPT",
        };

        which.by_hand("-F vpa--other", "flush chain inet netman filter/vpa--other");
        which.by_hand(
            "-I vpa--forward 1 -j ACCEPT",
            "insert rule inet netman filter/vpa--forward accept",
        );
        which.by_hand(
            &format!("-I FORWARD 1 {foreign}"),
            "insert rule inet netman filter/FORWARD ip saddr 192.0.2.1 accept",
        );
        which.by_hand("-t nat -F POSTROUTING", "flush chain inet netman nat/POSTROUTING");
        which.by_hand(
            "-A FORWARD -j vpa--other",
            "add rule inet netman filter/FORWARD jump filter/vpa--other",
        );
        if which == Which::Nftables {
            let by_hand = |nft| which.by_hand("", nft);
            by_hand("delete element inet netman vpa--web { 1 . tcp . 80 }");
            by_hand("add element inet netman vpa--web { 9 . udp . 99 }");
            by_hand("add element inet netman vpa--web { 9 . 99 . 99 }");
            by_hand("flush set inet netman vpa--nets");
            by_hand("add element inet netman vpa--nets { 10.9.0.0/16 . 6 }");
            by_hand("add element inet netman vpa--nets { 172.16.0.1-172.16.0.5 . 0-255 }");
            by_hand("delete element inet netman vpa--tags { 10.255.30.3 }");
            by_hand("add element inet netman vpa--tags { 10.255.30.3 : 0x99 }");
            by_hand("delete element inet netman filter/vpa--doors { 10.255.30.4 }");
            by_hand("add element inet netman filter/vpa--doors { 10.255.30.9 : accept }");
            by_hand("add set inet netman vpa--leftover { type ifname; }");
        }
        settle(kernel, &wanted);

        let repaired = kernel.observe().unwrap();
        let forward = repaired.rules(Table::Filter, "FORWARD").unwrap();
        match which {
            Which::Iptables(..) | Which::Dual(_) => {
                assert_eq!(forward, ["-j vpa--forward", foreign]);
            }
            Which::Nftables => {
                assert_eq!(forward, ["jump filter/vpa--forward", "ip saddr 192.0.2.1 accept"]);
            }
        }
        match which {
            Which::Iptables(..) | Which::Dual(_) => {
                which.by_hand(&format!("-D FORWARD {foreign}"), "");
            }
            Which::Nftables => return,
        }
        assert_eq!(kernel.observe().unwrap(), healthy);
    });
}

#[test]
fn a_set_made_for_something_else_is_replaced() {
    on_each_kernel(|which, kernel| {
        if which != Which::Nftables {
            return;
        }
        let wanted = every_shape();
        settle(kernel, &wanted);
        which.by_hand("", "flush chain inet netman filter/vpa--to-web");
        which.by_hand("", "delete set inet netman vpa--web");
        which.by_hand("", "add set inet netman vpa--web { type ifname; }");
        settle(kernel, &wanted);
        settled(kernel, &wanted);
    });
}

#[test]
fn a_changed_set_costs_what_changes() {
    on_each_kernel(|which, kernel| {
        let before: Vec<String> = (1..1000).map(|mark| format!("{mark} 8080")).collect();
        let mut before: Vec<&str> = before.iter().map(String::as_str).collect();
        let wanted = every_shape_and(&before);
        settle(kernel, &wanted);
        settled(kernel, &wanted);

        before.remove(500);
        before.push("9999 53");
        let wanted = every_shape_and(&before);
        let small = plan(kernel, &wanted);
        match which {
            Which::Nftables => assert_eq!(small.len(), 2),
            Which::Iptables(..) => assert!(small.len() < 8, "{}", small.render()),
            Which::Dual(_) => assert!(small.len() < 16, "{}", small.render()),
        }
        let number = kernel.generation().unwrap();
        kernel.commit(&small).unwrap();
        let raised = kernel.generation().unwrap().zip(number).map(|(after, before)| after - before);
        assert!(raised.is_none_or(|raised| raised == kernel.generations_of(&small)), "{raised:?}");
        settled(kernel, &wanted);
    });
}

#[test]
fn an_element_that_cannot_be_changed_fails_all_of_its_transaction() {
    on_each_kernel(|which, kernel| {
        if which != Which::Nftables {
            return;
        }
        let wanted = every_shape();
        settle(kernel, &wanted);
        let before = kernel.observe().unwrap();
        let element = |mark| Element::Port(mark, Protocol::Tcp, 80);
        let plan = Plan::nothing(kernel.dialect());
        let plan = plan.without("vpa--web", vec![element(1), element(9)]);
        assert!(kernel.commit(&plan).is_err());
        assert_eq!(kernel.observe().unwrap(), before);
        let plan = Plan::nothing(kernel.dialect()).without("vpa--web", vec![element(1)]);
        kernel.commit(&plan).unwrap();
        assert!(!kernel.observe().unwrap().elements("vpa--web").unwrap().contains(&element(1)));
    });
}

#[test]
fn what_the_operators_put_in_front_stays_there() {
    on_each_kernel(|which, kernel| {
        if which != Which::Nftables {
            return;
        }
        let mut wanted = every_shape();
        let jump = Rule::new(Action::Jump(chain("vpa--other")));
        wanted.hook(Table::Filter, Builtin::Input, Place::Last, jump);
        settle(kernel, &wanted);
        settled(kernel, &wanted);
        which.by_hand("", "add rule inet netman operator-input tcp dport 22 accept");
        settled(kernel, &wanted);
        settle(kernel, &Ruleset::new());
        let listing = Command::new("nft").args(["list", "table", "inet", "netman"]).output();
        let listing = String::from_utf8(listing.unwrap().stdout).unwrap();
        assert!(listing.contains("tcp dport 22 accept"), "{listing}");
    });
}

#[test]
fn what_is_no_longer_wanted_goes_without_a_trace() {
    on_each_kernel(|which, kernel| {
        which.by_hand("-t nat -P POSTROUTING ACCEPT", "list tables");
        which.by_hand("-A INPUT -i lo -j ACCEPT", "list tables");
        which.by_hand("-t mangle -P POSTROUTING ACCEPT", "list tables");
        let before = kernel.observe().unwrap();
        settle(kernel, &every_shape());
        settle(kernel, &Ruleset::new());
        let after = kernel.observe().unwrap();
        match which {
            Which::Iptables(..) => assert_eq!(after, before),
            Which::Dual(_) => {
                let all = Table::ALL.map(|table| after.chains(table).collect::<Vec<_>>()).concat();
                assert!(!all.iter().any(|chain| chain.contains("--")), "{all:?}");
            }
            Which::Nftables => {
                assert_eq!(after.sets().count(), 0);
                let left: Vec<_> = after.chains(Table::Filter).collect();
                assert_eq!(left, ["FORWARD"]);
            }
        }
    });
}

#[test]
fn a_refused_transaction_changes_nothing() {
    on_each_kernel(|_, kernel| {
        let mut wanted = every_shape();
        settle(kernel, &wanted);
        let before = kernel.observe().unwrap();
        let nowhere = Rule::new(Action::Jump(chain("vpa--nowhere")));
        wanted.replace_chain(Table::Filter, chain("vpa--forward"), vec![nowhere]);
        assert!(kernel.settle(&wanted, &scope()).is_err());
        assert_eq!(kernel.observe().unwrap(), before);
    });
}

#[test]
fn what_works_here_is_found_by_trying_and_leaves_nothing() {
    on_each_kernel(|which, kernel| {
        let before = kernel.observe().unwrap();
        let found = netfilter::probe();
        assert!(found.nftables && found.iptables.is_some() && found.ip6tables, "{found:?}");
        assert!(found.nflog && found.hashlimit, "{found:?}");
        let after = kernel.observe().unwrap();
        // iptables makes a table's own chains when it first touches it.
        let ours = |name: &&str| name.contains("netman");
        assert_eq!(after.chains(Table::Filter).filter(ours).count(), 0);
        if which == Which::Nftables {
            assert_eq!(after, before);
        }
    });
}

#[test]
fn nobody_writes_while_another_holds_the_lock() {
    on_each_kernel(|which, kernel| {
        let backend = match which {
            Which::Nftables => Backend::Nftables,
            Which::Iptables(Engine::Nft, Family::V4) => Backend::Iptables,
            Which::Iptables(..) | Which::Dual(_) => return,
        };
        let path = std::env::temp_dir().join(format!("netman-held-{}", std::process::id()));
        let held = std::fs::File::create(&path).unwrap();
        held.lock().unwrap();
        let write = |lock: Option<&std::path::PathBuf>, prefix: &'static str, times: usize| {
            let mut own = backend.open(lock.cloned()).unwrap();
            let mut wanted = Ruleset::new();
            wanted.chain(Table::Filter, chain(&format!("{prefix}x")), vec![]);
            for _ in 0..times {
                own.settle(&Ruleset::new(), &Scope::prefix(prefix)).unwrap();
                own.settle(&wanted, &Scope::prefix(prefix)).unwrap();
            }
        };
        let is_there = |kernel: &mut dyn Kernel, name: &str| {
            kernel.observe().unwrap().rules(Table::Filter, name).is_some()
        };
        thread::scope(|threads| {
            let waits = threads.spawn(|| write(Some(&path), "a--", 1));
            // Who does not ask has time to write over and over.
            write(None, "b--", 10);
            assert!(is_there(kernel, "b--x") && !is_there(kernel, "a--x"));
            assert!(!waits.is_finished());
            held.unlock().unwrap();
            waits.join().unwrap();
        });
        assert!(is_there(kernel, "a--x"));
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn nobody_writes_between_the_look_and_what_is_decided_from_it() {
    on_each_kernel(|which, _| {
        let backend = match which {
            Which::Nftables => Backend::Nftables,
            Which::Iptables(Engine::Nft, Family::V4) => Backend::Iptables,
            Which::Iptables(..) | Which::Dual(_) => return,
        };
        let path = std::env::temp_dir().join(format!("netman-change-{}", std::process::id()));
        let mut own = backend.open(Some(path.clone())).unwrap();
        let dialect = own.dialect();
        let mut asked = 0;
        let decide = &mut |observed: &netfilter::Observed| {
            asked += 1;
            let other = std::fs::File::open(&path).unwrap();
            assert!(other.try_lock().is_err(), "another may write now");
            let mut wanted = Ruleset::new();
            wanted.chain(Table::Filter, chain("vpa--x"), vec![Rule::new(Action::Accept)]);
            Plan::new(&Rendered::new(&wanted, dialect), observed, &scope())
        };
        assert!(!own.change(decide).unwrap().is_empty());
        assert!(own.change(decide).unwrap().is_empty());
        assert_eq!(asked, 2);
        // A program that another test is about to start shares our open files until it runs.
        let (file, deadline) = (std::fs::File::open(&path).unwrap(), Instant::now() + SOON);
        while file.try_lock().is_err() {
            assert!(Instant::now() < deadline, "nobody writes any more, and it is still held");
            thread::sleep(Duration::from_millis(1));
        }
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn many_who_write_at_once_under_a_lock_all_succeed() {
    on_each_kernel(|which, kernel| {
        let lock = std::env::temp_dir().join(format!("netman-lock-{}", std::process::id()));
        let backend = match which {
            Which::Nftables => Backend::Nftables,
            Which::Iptables(Engine::Nft, Family::V4) => Backend::Iptables,
            Which::Iptables(..) | Which::Dual(_) => return,
        };
        let writer = &|prefix: &'static str| {
            let mut own = backend.open(Some(lock.clone())).unwrap();
            let scope = Scope::prefix(prefix);
            let mut wanted = Ruleset::new();
            let owned = chain(&format!("{prefix}x"));
            wanted.chain(Table::Filter, owned.clone(), vec![Rule::new(Action::Accept)]);
            let jump = Rule::new(Action::Jump(owned));
            wanted.hook(Table::Filter, Builtin::Forward, Place::Last, jump);
            for _ in 0..5 {
                own.settle(&Ruleset::new(), &scope).unwrap();
                own.settle(&wanted, &scope).unwrap();
                own.observe().unwrap();
            }
        };
        thread::scope(|threads| {
            for prefix in ["a--", "b--", "c--", "d--", "e--", "f--"] {
                threads.spawn(move || writer(prefix));
            }
        });
        let observed = kernel.observe().unwrap();
        assert_eq!(observed.rules(Table::Filter, "FORWARD").map(<[String]>::len), Some(6));
        std::fs::remove_file(lock).unwrap();
    });
}

#[test]
fn a_firewall_reads_a_kernel_again_only_if_somebody_else_wrote() {
    on_each_kernel(|which, _| {
        let mut firewall = Firewall::new(which.open());
        let pass = |firewall: &mut Firewall, marks: &[&str]| {
            let settled = firewall.settle(&every_shape_and(marks), &scope()).unwrap();
            assert_eq!(settled.left, [].into());
            (settled, firewall.readings())
        };
        let first = pass(&mut firewall, &["1 80"]).1;
        let (settled, readings) = pass(&mut firewall, &["1 80", "2 81"]);
        assert!(!settled.plan.is_empty());
        let again = pass(&mut firewall, &["2 81"]).1;
        match which {
            Which::Iptables(Engine::Legacy, _) | Which::Dual(Engine::Legacy) => {
                assert!(readings > first && again > readings);
            }
            _ => assert_eq!((readings, again), (first, first)),
        }
        which.by_hand("-F vpa--to-web", "flush chain inet netman filter/vpa--to-web");
        let (settled, after) = pass(&mut firewall, &["2 81"]);
        assert_eq!(settled.plan.touched(), ["vpa--to-web".to_owned()].into());
        assert!(after > again);
    });
}

/// What a cell would say of packets from containers, here said of what this host sends to itself.
fn loopback() -> Ruleset {
    let address = |host: u8| IpAddr::from([127, 0, 0, host]);
    let tagged = (2..40).map(|host| (address(host), u32::from(host) * 0x111));
    let doors = (60..90).map(|host| (address(host), chain("vpa--to-web")));
    let marks = (0..600).map(|n| (n * 7, Protocol::Udp, PortRange::new(53, 53).unwrap()));
    let ranges = (2..8).map(|host| (host * 0x111, Protocol::Udp, PortRange::new(80, 82).unwrap()));
    let nets = ["127.0.0.96/28", "127.0.0.120/32"].map(|net| net.parse().unwrap());

    let mut wanted = Ruleset::new();
    let accept = || Rule::new(Action::Accept);
    let mut rules = vec![
        Rule::new(Action::MarkFrom(chain("vpa--tags"), Side::Source)),
        Rule::new(Action::Dispatch(chain("vpa--doors"), Side::Destination)),
        accept()
            .in_set(&chain("vpa--nets"), Side::Destination)
            .port_list(Protocol::Udp, vec!["53".parse().unwrap(), "81-90".parse().unwrap()]),
        Rule::new(Action::Goto(chain("vpa--last"))).mark(Mark { value: 0x200, mask: 0xf00 }),
    ];
    rules.push(Rule::new(Action::Reject(RejectWith::PortUnreachable)));
    wanted.chain(Table::Filter, chain("vpa--out"), rules);
    let last = vec![
        Rule::new(Action::Return).ports(Protocol::Udp, "99".parse().unwrap()),
        Rule::new(Action::Drop),
    ];
    wanted.chain(Table::Filter, chain("vpa--last"), last);
    let door = vec![accept().allowed_by(&chain("vpa--web"))];
    wanted.chain(Table::Filter, chain("vpa--to-web"), door);
    let jump = Rule::new(Action::Jump(chain("vpa--out")));
    wanted.hook(Table::Filter, Builtin::Output, Place::First, jump);
    wanted.set(chain("vpa--web"), SetBody::Allow(marks.chain(ranges).collect()));
    wanted.set(chain("vpa--nets"), SetBody::Nets(nets.into_iter().collect()));
    wanted.map(chain("vpa--tags"), MapBody::Tags(tagged.collect()));
    wanted.map(chain("vpa--doors"), MapBody::Doors(doors.collect()));
    wanted
}

#[test]
fn the_kernel_decides_as_the_rulebook_says() {
    on_each_kernel(|which, kernel| {
        if matches!(which, Which::Iptables(_, Family::V6)) {
            return;
        }
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success());
        let wanted = loopback();
        settle(kernel, &wanted);
        settled(kernel, &wanted);
        let book = Rulebook::of(&wanted);
        let (mut passed, mut refused) = (0, 0);
        for from in (1..42u8).step_by(2) {
            let source = IpAddr::from([127, 0, 0, from]);
            for to in [1, 60, 75, 89, 95, 96, 111, 112, 120, 121] {
                let destination = IpAddr::from([127, 0, 0, to]);
                for port in [53, 54, 80, 81, 82, 83, 90, 99] {
                    let packet = Packet::new(source, destination, Protocol::Udp, port);
                    let meant = book.judge(Table::Filter, Builtin::Output, &packet).verdict;
                    // What this host may not send, it is told at once.
                    let socket = UdpSocket::bind((source, 0)).unwrap();
                    let sent = socket.send_to(b"x", (destination, port)).is_ok();
                    assert_eq!(sent, meant == Verdict::Accepted, "{packet:?}: {meant:?}");
                    if sent { passed += 1 } else { refused += 1 }
                }
            }
        }
        assert!(passed > 100 && refused > 100, "{passed} passed, {refused} were refused");
    });
}
