//! What one container may send out of the overlay. Two programs write about it: the networker makes
//! `netout--`, which refuses, and the policy agent puts a jump to `asg-` in front of all it says, which
//! jumps on to what it shares with other containers ([`shared`]).

pub mod shared;

use policy::{EgressRule, PortRange, Traffic};

use crate::{Action, ChainName, Icmp, Rule};

/// The chain of what leaves a container for the world outside the overlay (spec/cell.md §C.5).
pub fn netout_chain(handle: &str) -> ChainName {
    ChainName::owned("netout", handle)
}

/// The chain of a container's security groups: `asg-` and the handle, without `check-` in front and
/// without dashes, cut to 20 characters (spec/cell.md §D.6). What this could make of two handles is told
/// apart by a hash; what the runtime makes up itself is too random to need one.
pub fn groups_chain(handle: &str) -> ChainName {
    let random = handle.strip_prefix("check-").unwrap_or(handle);
    let squeezed: String = random.chars().filter(|c| *c != '-').collect();
    let hexadecimal = squeezed.len() >= 24 && squeezed.bytes().all(|b| b.is_ascii_hexdigit());
    let unchanged = squeezed == handle && squeezed.len() <= 20;
    let short = || format!("asg-{}", squeezed.chars().take(20).collect::<String>()).parse();
    match short() {
        Ok(name) if hexadecimal || unchanged => name,
        _ => ChainName::hashed(&format!("asg-{handle}")),
    }
}

/// The rules that let what `rule` allows pass: one for each range of addresses and of ports.
pub fn accept(rule: &EgressRule) -> Vec<Rule> {
    let EgressRule { destinations, traffic, log: _ } = rule;
    let to = destinations.iter().map(|range| Rule::new(Action::Accept).to_range((*range).into()));
    to.flat_map(|rule| each_range(traffic).map(move |traffic| of(&traffic, rule.clone()))).collect()
}

/// `traffic`, one range of ports at a time.
fn each_range(traffic: &Traffic) -> Box<dyn Iterator<Item = Traffic> + '_> {
    match traffic {
        Traffic::Ports(protocol, ranges) => {
            let one = |range: &PortRange| Traffic::Ports(*protocol, vec![*range]);
            Box::new(ranges.iter().map(one))
        }
        other => Box::new(std::iter::once(other.clone())),
    }
}

/// `rule`, about traffic of this kind only.
fn of(traffic: &Traffic, rule: Rule) -> Rule {
    // 255/255 is the kernel's word for any.
    let icmp = |kind: Option<u8>, code| Icmp { kind: kind.unwrap_or(255), code: kind.and(code) };
    match traffic {
        Traffic::All => rule,
        Traffic::Icmp(kind, code) => rule.icmp(icmp(*kind, *code)),
        Traffic::IcmpV6(kind, code) => rule.icmp_v6(icmp(*kind, *code)),
        Traffic::Ports(protocol, ranges) => rule.port_list(*protocol, ranges.clone()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn handles_of_garden_have_the_chains_operators_know() {
        let name = |handle| groups_chain(handle).to_string();
        assert_eq!(name("3f1c0a52-6d8e-4b7a-5c21-9e04"), "asg-3f1c0a526d8e4b7a5c21");
        assert_eq!(name("check-3f1c0a52-6d8e-4b7a-5c21-9e0412345678"), "asg-3f1c0a526d8e4b7a5c21");
        assert_eq!(name("web"), "asg-web");
        assert!(name("web-2").starts_with("asg-web-2-"), "{}", name("web-2"));
    }

    proptest! {
        #[test]
        fn no_two_containers_share_a_chain(a in "[a-z-]{1,30}", b in "[a-z-]{1,30}") {
            prop_assert_eq!(a == b, groups_chain(&a) == groups_chain(&b));
        }

        #[test]
        fn every_handle_has_a_chain(handle in ".*") {
            prop_assert!(groups_chain(&handle).as_str().starts_with("asg-"));
        }
    }
}
