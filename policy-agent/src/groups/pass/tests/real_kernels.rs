//! The same on real kernels, each time in a network namespace of the test's own.

use std::thread;

use netfilter::{Backend, Capabilities, Kernel, RejectWith, egress::netout_chain, probe};
use nix::sched::{CloneFlags, unshare};

use super::*;

/// Runs `story` with each firewall there is here.
fn on_each(story: impl Fn(Backend, Box<dyn Kernel>) + Send + Copy + 'static) {
    for backend in [Backend::Iptables, Backend::Nftables] {
        let inside = move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root: run scripts/test");
            let found: Capabilities = probe();
            story(backend.choose(&found).unwrap(), backend.open(None).unwrap());
        };
        assert!(thread::spawn(inside).join().is_ok(), "the story fails on {backend}");
    }
}

/// A cell with so many containers of space `a`, of each of which the networker has written.
fn cell(kernel: Box<dyn Kernel>, containers: u8) -> Cell {
    let mut cell = Cell::new();
    let mut firewall = Firewall::new(kernel);
    let mut networkers = Ruleset::new();
    for number in 0..containers {
        let handle = format!("app{number}");
        cell.run(&handle, &format!("10.255.30.{number}"), "a");
        let refuse = Rule::new(Action::Reject(RejectWith::PortUnreachable));
        networkers.chain(Table::Filter, netout_chain(&handle), vec![refuse]);
    }
    firewall.settle(&networkers, &Scope::prefix("netout--")).unwrap();
    cell.enforcer.firewall = Shared::new(firewall);
    cell
}

/// A group with so many networks, no two of which make up a larger one.
fn wide(networks: u32) -> SecurityGroup {
    let net = |number: u32| format!("{}/32", Ipv4Addr::from((11 << 24) + number * 2));
    let nets: Vec<_> = (0..networks).map(net).collect();
    let rules = serde_json::json!([
        {"protocol": "tcp", "destination": nets.join(","), "ports": "80,443,8000-8010"},
        {"protocol": "icmp", "destination": nets.join(","), "type": 8, "code": 0},
        {"protocol": "all", "destination": "192.0.2.1,198.51.100.0/24,203.0.113.5-203.0.113.9"},
    ]);
    SecurityGroup { guid: "wide".into(), rules: rules.to_string(), ..bound("10.0.0.1", "a") }
}

#[test]
fn what_was_written_is_what_is_there_and_a_group_is_there_once() {
    on_each(|backend, kernel| {
        let mut cell = cell(kernel, 20);
        let groups = |networks| told(&["a"], vec![wide(networks), bound("10.0.0.1", "a")]);
        let outcome = cell.enforcer.pass(&groups(400)).unwrap();
        assert!(outcome.enforces, "{backend}: {:?}", outcome.standings);
        assert!(outcome.rules < 20 * 10 + 20, "{backend}: {} rules", outcome.rules);
        cell.enforcer.firewall.lock().forget();
        let again = cell.enforcer.pass(&groups(400)).unwrap().touched;
        assert!(again.is_empty(), "{backend}: {again:?}");
        for networks in [401, 399] {
            let touched = cell.enforcer.pass(&groups(networks)).unwrap().touched;
            let shared = touched.iter().all(|name| shared::owner(name).is_some());
            // The leaf of a tree, and perhaps its neighbour, for each of two kinds of traffic.
            assert!(shared && touched.len() <= 6, "{backend}: {touched:?}");
        }
        cell.enforcer.pass(&told(&["a"], vec![])).unwrap();
        cell.enforcer.firewall.lock().forget();
        let shared = &mut *cell.enforcer.firewall.lock();
        let observed = shared.observed().unwrap();
        let left = observed.chains(Table::Filter).chain(observed.sets());
        let left: Vec<_> = left.filter(|name| shared::owner(name).is_some()).collect();
        assert!(left.is_empty(), "{backend}: {left:?}");
    });
}
