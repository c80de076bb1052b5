//! The kernel as the Go agent and the CNI wrapper leave it (spec/cell.md §D.9), through either iptables.

use std::{
    io::Write,
    process::{Command, Stdio},
    thread,
};

use netfilter::{Engine, Iptables};
use nix::sched::{CloneFlags, unshare};

use super::*;

const RULES: &str = include_str!("predecessor.rules");
const A: (&str, &str, &str) =
    ("3f1c0a52-6d8e-4b7a-5c21-9e04", "10.255.30.2", "5c1d7a0e-6f0b-4c8e-9d5e-0c3b7f1a2e44");
const B: (&str, &str, &str) =
    ("b7d94e10-22fa-4c63-7a8b-01aa", "10.255.30.3", "e2a6c9f4-81d3-4b70-a5f2-6d0c93b7e118");
const OLD: &str = "vpa--1729771234567890";

fn program(engine: Engine, verb: &str) -> Command {
    Command::new(match engine {
        Engine::Nft => format!("iptables-nft-{verb}"),
        Engine::Legacy => format!("iptables-legacy-{verb}"),
    })
}

fn listing(engine: Engine) -> String {
    String::from_utf8(program(engine, "save").output().unwrap().stdout).unwrap()
}

/// The lines of a listing that are not the agent's.
fn of_others(listing: &str) -> Vec<&str> {
    listing.lines().filter(|line| !line.contains("vpa--") && !line.starts_with('#')).collect()
}

fn fill(engine: Engine) {
    let mut restore = program(engine, "restore").stdin(Stdio::piped()).spawn().unwrap();
    restore.stdin.take().unwrap().write_all(RULES.as_bytes()).unwrap();
    assert!(restore.wait().unwrap().success());
}

/// A cell whose kernel is filled so, in a network namespace of its own.
fn on_each(story: impl Fn(Engine, Cell) + Send + Copy + 'static) {
    for engine in [Engine::Nft, Engine::Legacy] {
        let inside = move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root: run scripts/test");
            fill(engine);
            let mut cell = Cell::new();
            cell.enforcer.firewall =
                Shared::new(Firewall::new(Box::new(Iptables::driving(engine))));
            for (handle, ip, app) in [A, B] {
                cell.run(handle, ip, app);
            }
            story(engine, cell);
        };
        assert!(thread::spawn(inside).join().is_ok(), "the story fails on {engine:?}");
    }
}

#[test]
fn the_predecessors_chain_goes_when_ours_stands_and_nothing_else_is_touched() {
    on_each(|engine, mut cell| {
        let before = listing(engine);
        let known = answer(&[A.2, B.2], &[(A.2, 1, B.2, 2)]);
        assert!(cell.enforcer.pass(Some(&known), true).unwrap().enforced);
        let after = listing(engine);
        assert!(!after.contains(OLD), "{after}");
        let lines: Vec<_> = of_others(&before);
        for line in of_others(&after) {
            // Chains are listed with counters of packets, of which there were none.
            assert!(lines.contains(&line), "{line}");
        }
        assert_eq!(of_others(&after).len(), lines.len());
        let first = after.lines().find(|line| line.starts_with("-A FORWARD")).unwrap();
        assert_eq!(first, "-A FORWARD -j vpa--forward");
        assert!(cell.enforcer.pass(Some(&known), true).unwrap().touched.is_empty());
    });
}

#[test]
fn until_the_server_has_answered_the_predecessors_rules_hold() {
    on_each(|engine, mut cell| {
        let before = listing(engine);
        assert!(!cell.enforcer.pass(None, true).unwrap().enforced);
        assert_eq!(of_others(&listing(engine)), of_others(&before));
        assert!(listing(engine).matches(OLD).count() == before.matches(OLD).count());
    });
}

#[test]
fn what_the_predecessor_says_of_an_address_is_not_believed_of_who_has_it_now() {
    on_each(|engine, mut cell| {
        store(&cell.files).remove(A.0).unwrap();
        cell.run("another", A.1, "another-app");
        assert!(!cell.enforcer.pass(None, true).unwrap().enforced);
        let after = listing(engine);
        let said = |of: &str| after.contains(&format!("-A {OLD} {of}/32 "));
        assert!(!said(&format!("-s {}", A.1)), "another app would send as A: {after}");
        assert!(said(&format!("-d {}", B.1)), "{after}");
    });
}

#[test]
fn the_masquerade_of_2016_stays_until_no_container_needs_it() {
    on_each(|engine, mut cell| {
        let masquerade = |words: &str| {
            let mut program = Command::new(match engine {
                Engine::Nft => "iptables-nft",
                Engine::Legacy => "iptables-legacy",
            });
            assert!(program.args(["-t", "nat"]).args(words.split(' ')).status().unwrap().success());
        };
        masquerade("-N vpa--masq-1478490000");
        masquerade("-A vpa--masq-1478490000 -s 10.255.30.0/24 ! -d 10.255.0.0/16 -j MASQUERADE");
        masquerade("-I POSTROUTING 1 -j vpa--masq-1478490000");
        // Of 2016, and without an identity.
        cell.run("old", "10.255.30.9", "");
        let known = answer(&[A.2, B.2], &[(A.2, 1, B.2, 2)]);
        let of_2016 = |cell: &mut Cell| {
            assert!(cell.enforcer.pass(Some(&known), true).unwrap().enforced);
            listing(engine).matches("vpa--masq-1478490000").count()
        };
        assert_eq!(of_2016(&mut cell), 3);
        assert_eq!(of_2016(&mut cell), 3);
        store(&cell.files).remove("old").unwrap();
        assert_eq!(of_2016(&mut cell), 0);
        assert!(listing(engine).contains("-s 10.255.30.2/32 "), "the wrapper's stay");
    });
}
