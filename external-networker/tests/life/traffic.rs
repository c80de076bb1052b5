//! What the kernel lets a container send.

use std::{
    net::UdpSocket,
    process::{Command, Stdio},
    time::Duration,
};

use hostnet::netns::write_sysctl;
use serde_json::json;

use crate::cell::{Cell, Process};

#[test]
fn a_container_reaches_the_hosts_services_and_only_under_its_own_address() {
    let (mut cell, web, db) = (Cell::new(), Process::start(), Process::start());
    let service = cell.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let closed = cell.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let port = |socket: &UdpSocket| socket.local_addr().unwrap().port();
    cell.configure("host_udp_services", json!([format!("10.255.30.1:{}", port(&service))]));
    cell.up("web", &web).answer();
    cell.up("db", &db).answer();
    let forge = "ip link set lo up && ip addr add 10.255.30.3/32 dev lo";
    let forged = web.netns().run(|| Command::new("sh").args(["-c", forge]).status().unwrap());
    assert!(forged.unwrap().success());

    let send = |from: &str, to: &UdpSocket| {
        let to = format!("10.255.30.1:{}", port(to));
        let send = || UdpSocket::bind((from, 0)).unwrap().send_to(from.as_bytes(), to);
        web.netns().run(send).unwrap().unwrap();
    };
    // In this order: by the time the last one has come, the others have come or never will.
    send("10.255.30.2", &closed);
    send("10.255.30.3", &service);
    send("10.255.30.2", &service);
    let mut buffer = [0; 32];
    service.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let (length, _) = service.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"10.255.30.2");
    closed.set_nonblocking(true).unwrap();
    assert!(closed.recv_from(&mut buffer).is_err(), "the port is not among the services");
}

#[test]
fn no_ipv6_passes_of_which_nothing_would_be_refused_unless_that_is_allowed() {
    for allowed in [false, true] {
        let (mut cell, web) = (Cell::new(), Process::start());
        let before = cell.links();
        cell.configure("allow_unfiltered_ipv6", allowed);
        cell.up("web", &web).answer();
        let links = cell.links();
        let link = links.iter().find(|link| !before.contains(link)).unwrap();
        // What is refused here says so by what follows.
        let add = |address: &str, link: &str| {
            let words = ["-6", "addr", "add", address, "dev", link, "nodad"];
            Command::new("ip").args(words).stderr(Stdio::null()).status().unwrap();
        };
        cell.inside(|| add("fd00::1/64", link));
        let service = cell.inside(|| UdpSocket::bind("[::]:0").unwrap());
        let port = service.local_addr().unwrap().port();
        let sent = web.netns().run(|| {
            add("fd00::2/64", "eth0");
            UdpSocket::bind("[::]:0")
                .and_then(|own| own.send_to(b"web", format!("[fd00::1]:{port}")))
        });
        assert_eq!(sent.unwrap().is_ok(), allowed, "{link}");
        if allowed {
            service.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let (length, _) = service.recv_from(&mut [0; 32]).unwrap();
            assert_eq!(length, 3);
        }
    }
}

#[test]
fn connections_do_not_outlive_their_container() {
    let (cell, container) = (Cell::new(), Process::start());
    cell.up("web", &container).answer();
    let opened =
        |ip: &str| format!("-p tcp -s {ip} -d 8.8.8.8 --sport 4000 --dport 53 --state ESTABLISHED");
    let answers = |ip: &str| {
        let reply = format!("-r {ip} -q 8.8.8.8 --reply-port-src 8080 --reply-port-dst 4000");
        format!("-p udp -s 8.8.8.8 -d 10.0.16.14 --sport 4000 --dport 61000 {reply}")
    };
    let pings =
        |ip: &str| format!("-p icmp -s {ip} -d 8.8.8.8 --icmp-type 8 --icmp-code 0 --icmp-id 1");
    for kind in [
        opened("10.255.30.2"),
        answers("10.255.30.2"),
        pings("10.255.30.2"),
        opened("10.255.30.20"),
    ] {
        cell.tool("conntrack", &format!("-I {kind} -t 600"));
    }
    assert_eq!(cell.tool("conntrack", "-L").lines().count(), 4);
    cell.down("web").fine();
    let left = cell.tool("conntrack", "-L");
    assert!(!left.contains("10.255.30.2 ") && left.contains("10.255.30.20 "), "{left}");
}

#[test]
fn a_cell_that_would_believe_forged_addresses_is_refused() {
    let (cell, container) = (Cell::new(), Process::start());
    cell.inside(|| write_sysctl("net/ipv4/conf/all/rp_filter", "2")).unwrap();
    assert!(cell.up("web", &container).complaint().contains("net.ipv4.conf.all.rp_filter is 2"));
    cell.is_bare();
}
