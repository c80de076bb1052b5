//! The real kernel, in a network namespace of the test's own: what we write is what we read back, so a
//! second pass has nothing to do, whatever the shape of the rule.
#![allow(clippy::unwrap_used, reason = "a test that cannot set the scene says where")]

mod meaning;
mod others_hands;
mod shapes;
mod transactions;
mod writers;

use std::{num::NonZeroU32, process::Command, thread};

use netfilter::{
    ChainName, Engine, Family, Iptables, Kernel, Nftables, Plan, Rendered, Ruleset, Scope, Table,
};
use nix::sched::{CloneFlags, unshare};

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

fn scope() -> Scope {
    Scope::prefix("vpa--").with_comment("netman:web")
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
