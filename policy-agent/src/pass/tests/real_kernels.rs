//! The same on real kernels, each time in a network namespace of the test's own.

use std::{process::Command, thread};

use netfilter::{Backend, Capabilities, probe};
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

/// A cell with files of its own.
fn cell(kernel: Box<dyn Kernel>) -> Cell {
    let mut cell = Cell::new();
    cell.enforcer.firewall = Shared::new(Firewall::new(kernel));
    cell
}

/// Policies of so many apps for `db`, and one the other way.
fn many(sources: u32) -> Vec<(String, u32)> {
    (0..sources).map(|number| (format!("app-{number}"), number + 10)).collect()
}

fn for_db(sources: &[(String, u32)]) -> Answer {
    let policies: Vec<_> = sources.iter().map(|(app, tag)| (app.as_str(), *tag, "db", 2)).collect();
    answer(&["db"], &[&policies[..], &[("db", 2, "app-0", 10)]].concat())
}

fn listing(backend: Backend) -> String {
    let output = match backend {
        Backend::Nftables => Command::new("nft").args(["list", "ruleset"]).output(),
        _ => Command::new("iptables-save").output(),
    };
    String::from_utf8(output.unwrap().stdout).unwrap()
}

#[test]
fn what_was_written_is_what_is_there_and_one_policy_more_is_one_entry_more() {
    on_each(|backend, kernel| {
        let mut cell = cell(kernel);
        cell.run("h", "10.255.30.3", "db");
        let first = for_db(&many(400));
        assert!(cell.enforcer.pass(Some(&first), true).unwrap().enforced);
        assert!(cell.enforcer.pass(Some(&first), true).unwrap().touched.is_empty());
        for sources in [401, 399, 402] {
            let outcome = cell.enforcer.pass(Some(&for_db(&many(sources))), false).unwrap();
            let touched = outcome.touched.into_iter().collect::<Vec<_>>();
            let [one] = &touched[..] else { panic!("{backend}: {touched:?}") };
            assert!(one.starts_with("vpa--to-db"), "{backend}: {one}");
        }
        assert!(!cell.enforcer.has_moved(), "{backend}");
        assert!(cell.enforcer.pass(Some(&for_db(&many(402))), true).unwrap().touched.is_empty());
    });
}

/// As many chains behind each other as there can be: nf_tables takes sixteen.
#[test]
fn the_deepest_rules_there_are_are_taken() {
    on_each(|backend, kernel| {
        let mut cell = cell(kernel);
        cell.enforcer.told_accepted = Accepted::new(true, std::num::NonZeroU32::MIN);
        cell.enforcer.shadow = Shadow::open(
            crate::ShadowModes { removals: true, ..crate::ShadowModes::default() },
            Some(cell.files.path().join("shadow.json")),
        );
        for number in 2..200 {
            cell.run(&format!("h{number}"), &format!("10.255.30.{number}"), "db");
        }
        let each_port = |ports: u16| {
            let port = |port: u16| policy::PortRange::new(port, port).unwrap();
            let policies = (1..=ports).map(|number| ("web", 0xabcd, "db", 2, port(number)));
            answer_for(&["db"], policies.chain([("far", 0xabce, "db", 2, port(9))]))
        };
        let all = each_port(300);
        assert!(cell.enforcer.pass(Some(&all), true).unwrap().enforced, "{backend}");
        let outcome = cell.enforcer.pass(Some(&each_port(0)), true).unwrap();
        assert_eq!((outcome.enforced, outcome.shadow.removals.len()), (true, 300), "{backend}");
        assert!(cell.enforcer.pass(Some(&each_port(0)), true).unwrap().touched.is_empty());
    });
}

#[test]
fn an_agent_started_again_finds_what_it_left_and_takes_no_container_for_another() {
    on_each(|backend, kernel| {
        let mut cell = cell(kernel);
        cell.run("h", "10.255.30.3", "db");
        cell.run("i", "10.255.30.4", "db");
        let known = for_db(&many(3));
        cell.enforcer.pass(Some(&known), true).unwrap();
        let before = listing(backend);
        assert!(before.contains("10.255.30.3"), "{before}");

        cell.restart();
        cell.enforcer.firewall = Shared::new(Firewall::new(backend.open(None).unwrap()));
        assert!(cell.enforcer.pass(None, true).unwrap().touched.is_empty(), "{backend}");
        store(&cell.files).remove("h").unwrap();
        cell.run("j", "10.255.30.3", "other");
        let outcome = cell.enforcer.pass(None, true).unwrap();
        assert_eq!(outcome.touched.len(), 2, "{backend}: {:?}", outcome.touched);
        let now = listing(backend);
        assert!(!now.contains("10.255.30.3") && now.contains("10.255.30.4"), "{backend}: {now}");
        assert!(cell.enforcer.pass(None, true).unwrap().touched.is_empty(), "{backend}");
        assert!(!cell.enforcer.pass(Some(&known), true).unwrap().touched.is_empty());
    });
}

#[test]
fn a_cell_told_to_write_the_other_firewall_has_its_rules_there_and_nowhere_else() {
    on_each(|backend, kernel| {
        let mut cell = cell(kernel);
        cell.run("h", "10.255.30.3", "db");
        let known = for_db(&many(3));
        cell.enforcer.pass(Some(&known), true).unwrap();
        let other = match backend {
            Backend::Nftables => Backend::Iptables,
            _ => Backend::Nftables,
        };
        cell.restart();
        cell.enforcer.firewall = Shared::new(Firewall::new(other.open(None).unwrap()));
        cell.enforcer.former = Former::of(Some(backend.open(None).unwrap()));
        assert!(cell.enforcer.pass(Some(&known), true).unwrap().enforced);
        let [there, here] = [other, backend].map(listing);
        assert!(there.contains("vpa--to-db"), "{there}");
        let left: Vec<_> = match backend {
            // Through nft, iptables' rules are seen as well.
            Backend::Nftables => here.split("table inet netman").skip(1).collect(),
            _ => vec![&here[..]],
        };
        assert!(!left.concat().contains("vpa--to-db"), "{}", left.concat());
    });
}
