//! The real kernel, in a network namespace of the test's own: what programs everybody knows put there
//! is what is heard and found here.
#![allow(clippy::unwrap_used, reason = "a test that cannot set the scene says where")]

use std::{
    collections::BTreeSet,
    future::Future,
    net::{IpAddr, UdpSocket},
    process::Command,
    thread,
    time::Duration,
};

use netfilter::{Family, Kernel, Nftables};
use netfilter_events::{
    conntrack::{Connection, Connections, Conntrack, Pick},
    generation::Changes,
    nflog::Listener,
    packet::Transport,
};
use nix::sched::{CloneFlags, unshare};
use policy::Protocol;

/// How long the kernel may take to tell.
const SOON: Duration = Duration::from_secs(60);

/// Runs `test` on a thread that has a network of its own; programs it starts share it.
fn in_own_network<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let inside = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root: run scripts/test");
        run("ip link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    };
    thread::spawn(inside).join().unwrap();
}

fn run(command: &str) {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

async fn soon<T>(future: impl Future<Output = std::io::Result<T>>) -> T {
    tokio::time::timeout(SOON, future).await.expect("the kernel tells").unwrap()
}

/// `conntrack -I` of a connection that lasts; the port tells it from others.
fn remember(protocol: &str, source: &str, destination: &str, port: u16, more: &str) {
    run(&format!(
        "conntrack -I -p {protocol} -s {source} -d {destination} --sport {port} --dport 53 -t 600{more}"
    ));
}

/// As many connections as there are `ports`, from one port to each of these; which one that is.
fn remember_all(ports: impl Iterator<Item = u16>) -> u16 {
    // Each datagram is remembered: nobody listens, but nobody refuses what is on the way.
    run("iptables -A OUTPUT -m conntrack --ctstate NEW -j ACCEPT");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for port in ports {
        // An earlier datagram was refused; that is told at the next.
        while socket.send_to(b"x", ("127.0.0.1", port)).is_err() {}
    }
    socket.local_addr().unwrap().port()
}

#[test]
fn the_kernel_leaves_out_connections_that_were_not_asked_for() {
    in_own_network(|| async {
        remember("udp", "10.255.30.2", "10.255.31.3", 1000, " --mark 7");
        remember("udp", "10.255.30.2", "10.255.31.3", 1001, "");
        remember("tcp", "10.255.31.3", "10.255.30.2", 1002, " --state ESTABLISHED --mark 7");
        remember("tcp", "10.255.31.3", "10.255.30.2", 1003, " --state ESTABLISHED --mark 9");
        remember("udp", "fd00::2", "fd00::3", 1004, "");
        let mut conntrack = Conntrack::default();
        let mut picked = |picks: &[Pick]| {
            let picked = conntrack.pick(&picks.iter().copied().collect()).unwrap();
            let mut ports: Vec<_> = picked.iter().map(|c| c.source_port).collect();
            ports.sort_unstable();
            ports
        };
        let from = |address: &str| Pick::From(address.parse().unwrap(), None);
        let marked = |mark, port| Pick::Marked(Family::V4, mark, port);
        assert_eq!(picked(&[]), [0; 0]);
        assert_eq!(picked(&[marked(7, None)]), [1000, 1002]);
        assert_eq!(picked(&[marked(0, None)]), [1001]);
        assert_eq!(picked(&[Pick::Marked(Family::V6, 0, None)]), [1004]);
        assert_eq!(picked(&[from("10.255.30.2")]), [1000, 1001]);
        assert_eq!(picked(&[from("fd00::2")]), [1004]);
        assert_eq!(picked(&[from("fd00::3")]), [0; 0]);
        let several = [marked(7, None), marked(9, None), from("10.255.30.2")];
        assert_eq!(picked(&several), [1000, 1001, 1002, 1003], "each once");
        remember_all(100..10_100);
        assert_eq!(picked(&several), [1000, 1001, 1002, 1003], "among too many to be told");

        let translated = " --mark 5 --reply-src 10.255.30.9 --reply-dst 192.0.2.1 \
                          --reply-port-src 8080 --reply-port-dst 1005";
        remember("udp", "192.0.2.1", "10.0.16.14", 1005, translated);
        let (tcp, udp) = (|port| Some((Protocol::Tcp, port)), |port| Some((Protocol::Udp, port)));
        assert_eq!(picked(&[marked(7, udp(53))]), [1000]);
        assert_eq!(picked(&[marked(7, tcp(53))]), [1002]);
        assert_eq!(picked(&[marked(0, udp(53))]), [1001]);
        assert_eq!(picked(&[Pick::Marked(Family::V6, 0, udp(53))]), [1004]);
        assert_eq!(picked(&[marked(7, udp(54))]), [0; 0]);
        assert_eq!(picked(&[marked(5, udp(8080))]), [1005], "by the port that answers");
        assert_eq!(picked(&[marked(5, udp(53))]), [0; 0]);
        let there = |port| Pick::From("192.0.2.1".parse().unwrap(), port);
        assert_eq!(picked(&[there(udp(8080))]), [1005], "by the port that answers");
        assert_eq!(picked(&[there(udp(53))]), [0; 0]);
        assert_eq!(picked(&[there(tcp(8080))]), [0; 0]);
        let six = |port| Pick::From("fd00::2".parse().unwrap(), port);
        assert_eq!(picked(&[six(udp(53))]), [1004]);
        assert_eq!(picked(&[six(tcp(53))]), [0; 0]);

        let of_one_port = [marked(7, udp(53)), Pick::From([10, 255, 30, 2].into(), udp(53))];
        assert_eq!(picked(&of_one_port), [1000, 1001], "by what they have in common");
        for _ in 0..10_000 {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            while socket.send_to(b"x", ("127.0.0.1", 53)).is_err() {}
        }
        assert_eq!(picked(&of_one_port), [1000, 1001], "though too many have that in common");
        assert_eq!(picked(&of_one_port), [1000, 1001], "and the next question is answered");
    });
}

#[test]
fn connections_of_both_families_are_listed_and_forgotten() {
    in_own_network(|| async {
        remember("udp", "10.255.30.2", "10.255.31.3", 1000, " --mark 7");
        remember("tcp", "fd00::2", "fd00::3", 1001, " --state ESTABLISHED");
        let translated = " --reply-src 10.255.30.9 --reply-dst 192.0.2.1 \
                          --reply-port-src 8080 --reply-port-dst 1002";
        remember("udp", "192.0.2.1", "10.0.16.14", 1002, translated);
        run(
            "conntrack -I -p icmp -s 10.0.0.1 -d 10.0.0.2 --icmp-type 8 --icmp-code 0 --icmp-id 1 -t 600",
        );

        let mut conntrack = Conntrack::default();
        let listed = conntrack.list().unwrap();
        let of = |port| *listed.iter().find(|c| c.source_port == port).unwrap();
        assert_eq!(listed.len(), 3, "ICMP is left out");
        assert_eq!((of(1000).mark, of(1000).protocol), (7, Protocol::Udp));
        assert_eq!(of(1001).destination, "fd00::3".parse::<IpAddr>().unwrap());
        assert_eq!(of(1002).responder, IpAddr::from([10, 255, 30, 9]));
        assert_eq!((of(1002).responder_port, of(1002).destination_port), (8080, 53));

        assert_eq!(conntrack.forget(&[of(1000), of(1001)]).unwrap(), 2);
        assert_eq!(conntrack.forget(&[of(1000)]).unwrap(), 0, "is gone already");
        let left: Vec<_> = conntrack.list().unwrap().iter().map(|c| c.source_port).collect();
        assert_eq!(left, [1002]);
    });
}

#[test]
fn a_connection_that_took_the_place_of_another_is_left_alone() {
    in_own_network(|| async {
        let mut conntrack = Conntrack::default();
        remember("udp", "10.255.30.2", "10.255.31.3", 1000, "");
        let later = conntrack.list().unwrap();
        let id = later[0].id.map(|id| id ^ 1);
        assert!(id.is_some(), "the kernel numbers its connections");
        assert_eq!(conntrack.forget(&[Connection { id, ..later[0] }]).unwrap(), 0);
        assert_eq!(conntrack.forget(&later).unwrap(), 1);
    });
}

#[test]
fn more_connections_than_one_answer_holds_are_forgotten_and_no_others() {
    in_own_network(|| async {
        let port = remember_all(1..=1500);
        let mut conntrack = Conntrack::default();
        let all = conntrack.list().unwrap();
        let ours = all.iter().filter(|c| c.source_port == port).copied();
        let (doomed, kept): (Vec<_>, Vec<_>) = ours.partition(|c| c.destination_port > 10);
        let ports: BTreeSet<_> = doomed.iter().map(|c| c.destination_port).collect();
        assert_eq!((ports.len(), kept.len()), (1490, 10));
        assert_eq!(conntrack.forget(&doomed).unwrap(), 1490);
        assert_eq!(conntrack.list().unwrap().len(), all.len() - 1490);
    });
}

#[test]
fn a_packet_a_rule_tells_of_is_heard() {
    in_own_network(|| async {
        let mut listener = soon(Listener::open(40)).await;
        run("iptables -A OUTPUT -p udp --dport 4999 -j MARK --set-mark 7");
        run(
            "iptables -A OUTPUT -p udp --dport 4999 -j NFLOG --nflog-group 40 --nflog-prefix DENY_C2C_web",
        );
        run(
            "iptables -A OUTPUT -p udp --dport 4998 -j NFLOG --nflog-group 41 --nflog-prefix others",
        );
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", "127.0.0.1:4998").unwrap();
        while socket.send_to(b"x", "127.0.0.1:4999").is_err() {}
        let told = soon(listener.next()).await;
        let packet = &told.packets[0];
        assert_eq!((packet.prefix.as_str(), packet.mark, told.lost), ("DENY_C2C_web", 7, false));
        let header = packet.header.unwrap();
        assert_eq!(header.destination, IpAddr::from([127, 0, 0, 1]));
        let source = socket.local_addr().unwrap().port();
        let expected = Transport::Ports { protocol: Protocol::Udp, source, destination: 4999 };
        assert_eq!(header.transport, expected);
        assert_eq!((packet.input, packet.output.is_some()), (None, true));

        let taken = Listener::open(40).await.unwrap_err();
        assert_eq!(taken.kind(), std::io::ErrorKind::PermissionDenied, "{taken}");
    });
}

#[test]
fn a_change_of_the_rules_is_counted_and_told_with_its_author() {
    in_own_network(|| async {
        let mut kernel = Nftables::open().unwrap();
        let mut changes = Changes::open().unwrap();
        let mut number = || kernel.generation().unwrap().unwrap();
        let before = number();
        assert_eq!(number(), before, "reading changes nothing");
        run("nft add table inet ours");
        let change = soon(changes.next()).await.unwrap();
        assert_eq!(change.program.as_deref(), Some("nft"));
        assert_eq!(change.generation, number());
        assert_ne!(change.generation, before);
    });
}
