//! What we write is what we read back, whatever the shape of the rule.

use std::net::IpAddr;

use ipnet::IpNet;
use netfilter::{
    Action, AddressRange, Allow, Builtin, ConnectionState, Icmp, Interface, Limit, Log, LogPrefix,
    MapBody, Mark, Nets, Place, RejectWith, Rule, Ruleset, SetBody, Side, Table, TooMany,
    Transport,
};
use policy::{PortRange, Protocol};

use crate::{Which, chain, count, on_each_kernel, settle, settled};

/// What marks may reach over TCP: `"mark ports"`.
fn allowed(texts: &[&str]) -> Allow {
    let entry = |text: &&str| {
        let (mark, ports) = text.split_once(' ').unwrap();
        (mark.parse().unwrap(), Protocol::Tcp, ports.parse().unwrap())
    };
    texts.iter().map(entry).collect()
}

/// One rule of every shape the vocabulary can say.
pub fn every_shape() -> Ruleset {
    every_shape_and(&["1 80", "2 8080-8090", "65535 53"])
}

/// The same, where this is allowed.
pub fn every_shape_and(allow: &[&str]) -> Ruleset {
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
