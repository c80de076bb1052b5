//! The real kernel, in a network namespace of the test's own: what we write is what we read back, so a
//! second pass has nothing to do, whatever the shape of the rule.
#![allow(clippy::unwrap_used, reason = "a test that cannot set the scene says where")]

use std::{net::Ipv4Addr, process::Command, thread};

use ipnet::Ipv4Net;
use netfilter::{
    Action, AddressRange, Builtin, ChainName, ConnectionState, Icmp, Interface, Iptables, Kernel,
    Mark, Place, Plan, RejectWith, Rendered, Rule, Ruleset, Scope, Table, Transport,
};
use nix::sched::{CloneFlags, unshare};
use policy::Protocol;

/// Runs `test` on a thread that has a network of its own; programs it starts share it.
fn in_own_network(test: impl FnOnce() + Send + 'static) {
    let inside = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root: run scripts/test");
        test();
    };
    thread::spawn(inside).join().unwrap();
}

fn iptables(args: &str) {
    let status = Command::new("iptables").args(args.split(' ')).status().unwrap();
    assert!(status.success(), "iptables {args}: {status}");
}

fn chain(name: &str) -> ChainName {
    name.parse().unwrap()
}

/// One rule of every shape the vocabulary can say.
fn every_shape() -> Ruleset {
    let ip: Ipv4Addr = "10.255.30.3".parse().unwrap();
    let net: Ipv4Net = "10.255.30.0/24".parse().unwrap();
    let vtep: Interface = "silk-vtep".parse().unwrap();
    let range = AddressRange { start: ip.into(), end: "10.255.30.9".parse().unwrap() };
    let accept = || Rule::new(Action::Accept);
    let mut filter = vec![
        Rule::new(Action::Jump(chain("vpa--other"))).not_in_through(&vtep),
        accept().to(net).state(ConnectionState::RelatedOrEstablished),
        Rule::new(Action::Drop).transport(Transport::Tcp).state(ConnectionState::Invalid),
        accept().from(net).out_through(&vtep).marked(),
        accept().to("0.0.0.0/0".parse::<Ipv4Net>().unwrap()).in_through(&vtep),
        Rule::new(Action::Reject(RejectWith::PortUnreachable)).from(ip),
    ];
    filter.extend(Rule::reject(|rule| {
        rule.from(net).to("10.255.0.0/16".parse::<Ipv4Net>().unwrap())
    }));
    let other = vec![
        Rule::new(Action::SetMark(1)).from(ip).comment("src:web app"),
        Rule::new(Action::SetMark(0xffff_0000))
            .to(ip)
            .ports(Protocol::Tcp, "61000".parse().unwrap()),
        Rule::new(Action::SaveMark).marked(),
        Rule::new(Action::Drop).not_from(ip).in_through_bridge_port(&vtep),
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
    let mut wanted = Ruleset::new();
    wanted.chain(Table::Filter, chain("vpa--forward"), filter);
    wanted.chain(Table::Filter, chain("vpa--other"), other);
    let jump = Rule::new(Action::Jump(chain("vpa--forward")));
    wanted.hook(Table::Filter, Builtin::Forward, Place::First, jump);
    let dnat = Rule::new(Action::Dnat(ip.into(), 8080))
        .to(ip)
        .ports(Protocol::Tcp, "61000".parse().unwrap());
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
    in_own_network(|| {
        let mut kernel = Iptables::new();
        let wanted = every_shape();
        kernel.settle(&wanted, &scope()).unwrap();
        let again = Plan::new(
            &Rendered::new(&wanted, kernel.dialect()),
            &kernel.observe().unwrap(),
            &scope(),
        );
        assert!(again.is_empty(), "a second pass would do:\n{}", again.render());
    });
}

#[test]
fn any_comment_reads_back_as_written() {
    in_own_network(|| {
        let everything: String = (0..=255u8).map(char::from).collect();
        let single = (0..128u8).map(|byte| char::from(byte).to_string());
        let long =
            ["src:".repeat(100), "x".repeat(300), "é".repeat(300), "src: -j DROP".to_owned()];
        let comments = single.chain(long).chain([everything, String::new()]);
        let rules = comments.map(|comment| Rule::new(Action::Accept).comment(&comment)).collect();
        let mut wanted = Ruleset::new();
        wanted.chain(Table::Filter, chain("vpa--forward"), rules);
        let mut kernel = Iptables::new();
        kernel.settle(&wanted, &scope()).unwrap();
        let again = Plan::new(
            &Rendered::new(&wanted, kernel.dialect()),
            &kernel.observe().unwrap(),
            &scope(),
        );
        assert!(again.is_empty(), "a second pass would do:\n{}", again.render());
    });
}

#[test]
fn vandalised_rules_are_put_right_and_others_left_alone() {
    in_own_network(|| {
        let mut kernel = Iptables::new();
        let wanted = every_shape();
        kernel.settle(&wanted, &scope()).unwrap();
        let healthy = kernel.observe().unwrap();

        iptables("-F vpa--other");
        iptables("-I vpa--forward 1 -j ACCEPT");
        iptables("-I FORWARD 1 -s 192.0.2.1 -j ACCEPT");
        iptables("-t nat -F POSTROUTING");
        iptables("-A FORWARD -j vpa--other");
        kernel.settle(&wanted, &scope()).unwrap();

        let repaired = kernel.observe().unwrap();
        let forward = repaired.rules(Table::Filter, "FORWARD").unwrap();
        assert_eq!(forward, ["-j vpa--forward", "-s 192.0.2.1/32 -j ACCEPT"]);
        iptables("-D FORWARD -s 192.0.2.1 -j ACCEPT");
        assert_eq!(kernel.observe().unwrap(), healthy);
    });
}

#[test]
fn what_is_no_longer_wanted_goes_without_a_trace() {
    in_own_network(|| {
        let mut kernel = Iptables::new();
        iptables("-A INPUT -s 192.0.2.1 -j ACCEPT");
        iptables("-t nat -P POSTROUTING ACCEPT");
        let before = kernel.observe().unwrap();
        kernel.settle(&every_shape(), &scope()).unwrap();
        kernel.settle(&Ruleset::new(), &scope()).unwrap();
        assert_eq!(kernel.observe().unwrap(), before);
    });
}

#[test]
fn a_refused_transaction_changes_nothing() {
    in_own_network(|| {
        let mut kernel = Iptables::new();
        let mut wanted = every_shape();
        kernel.settle(&wanted, &scope()).unwrap();
        let before = kernel.observe().unwrap();
        let nowhere = Rule::new(Action::Jump(chain("vpa--nowhere")));
        wanted.chain(Table::Filter, chain("vpa--forward"), vec![nowhere]);
        assert!(kernel.settle(&wanted, &scope()).is_err());
        assert_eq!(kernel.observe().unwrap(), before);
    });
}
