//! What second addresses of containers, of IPv6, need of this cell, if they are to have any.

use std::thread;

use hostnet::netns::read_sysctl;
use netfilter::{Backend, Capabilities, probe};
use nix::sched::{CloneFlags, unshare};

use super::{Finding, cell::Stored};
use crate::{Config, world};

pub(super) fn examine(config: &Config, stored: &Stored) -> Vec<Finding> {
    let Some(network) = config.second_network else { return Vec::new() };
    // That it cannot be read is said elsewhere.
    let contents = stored.iter().flatten().flat_map(|contents| &contents.containers);
    let containers: Vec<_> = contents.collect();
    let dual =
        containers.iter().filter(|one| world::second_address(one, network).is_some()).count();
    let forwarding = read_sysctl("net/ipv6/conf/all/forwarding").ok();
    vec![
        judge_firewall(config.backend, &tried()),
        judge_forwarding(forwarding.as_deref(), dual),
        Finding::fine(
            "second addresses",
            format!("{dual} of {} containers have one, in {network}", containers.len()),
        ),
    ]
}

/// What can be had, by trying in a network made for it and gone with it.
fn tried() -> Capabilities {
    // A thread that has moved must not be used for anything else.
    let own_network = || unshare(CloneFlags::CLONE_NEWNET).map(|()| probe());
    thread::spawn(own_network).join().ok().and_then(Result::ok).unwrap_or_default()
}

fn judge_firewall(backend: Backend, found: &Capabilities) -> Finding {
    match backend.choose_dual(found) {
        Ok(Backend::Nftables) => {
            Finding::fine("firewall of IPv6", "nftables has one table for both")
        }
        Ok(_) => Finding::fine("firewall of IPv6", "ip6tables works as iptables does"),
        Err(error) => Finding::broken("firewall of IPv6", error.to_string()),
    }
}

fn judge_forwarding(forwarding: Option<&str>, dual: usize) -> Finding {
    let setting = "net.ipv6.conf.all.forwarding";
    match forwarding {
        Some("1") => Finding::fine("forwarding of IPv6", format!("{setting} is 1")),
        Some(_) if dual == 0 => Finding::unknown(
            "forwarding of IPv6",
            format!("{setting} is 0; plugins set it with the first container that needs it"),
        ),
        Some(value) => Finding::broken(
            "forwarding of IPv6",
            format!("{setting} is {value}: what containers send over IPv6 is lost; set it to 1"),
        ),
        None => Finding::broken("forwarding of IPv6", "this kernel has no IPv6"),
    }
}

#[cfg(test)]
mod tests {
    use netfilter::Engine;

    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn one_firewall_of_both_families_is_enough_and_half_of_one_is_not() {
        let half = Capabilities {
            iptables: Some(Engine::Nft),
            refusals: [("ip6tables", "no such program".to_owned())].into(),
            ..Capabilities::default()
        };
        let judged = judge_firewall(Backend::Iptables, &half);
        assert_eq!(judged.verdict, Verdict::Broken);
        assert!(judged.says.contains("dual_stack needs ip6tables as well: no such program"));
        let both = Capabilities { ip6tables: true, ..half.clone() };
        assert_eq!(judge_firewall(Backend::Iptables, &both).verdict, Verdict::Fine);
        let nftables = Capabilities { nftables: true, ..half };
        assert_eq!(judge_firewall(Backend::Auto, &nftables).verdict, Verdict::Fine);
    }

    #[test]
    fn without_forwarding_containers_with_second_addresses_are_cut_off() {
        assert_eq!(judge_forwarding(Some("1"), 3).verdict, Verdict::Fine);
        assert_eq!(judge_forwarding(Some("0"), 3).verdict, Verdict::Broken);
        assert_eq!(judge_forwarding(Some("0"), 0).verdict, Verdict::Unknown);
        assert_eq!(judge_forwarding(None, 0).verdict, Verdict::Broken);
    }
}
