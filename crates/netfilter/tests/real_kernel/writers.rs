//! Several write, and one waits for the other.

use std::{
    thread,
    time::{Duration, Instant},
};

use netfilter::{
    Action, Backend, Builtin, Engine, Family, Firewall, Kernel, Place, Plan, Rendered, Rule,
    Ruleset, Scope, Table,
};

use crate::{Which, chain, on_each_kernel, scope, shapes::every_shape_and};

/// What is only to be waited out is over within this.
const SOON: Duration = Duration::from_secs(60);

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
