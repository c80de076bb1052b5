//! What rules mean to the kernel is what they mean to us.

use std::{
    net::{IpAddr, UdpSocket},
    process::Command,
};

use netfilter::{
    Action, Builtin, Family, MapBody, Mark, Place, RejectWith, Rule, Ruleset, SetBody, Side, Table,
    judge::{Packet, Rulebook, Verdict},
};
use policy::{PortRange, Protocol};

use crate::{Which, chain, on_each_kernel, settle, settled};

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
