//! What several containers may send, said once: a chain for each security group, which the chains of all
//! containers it holds for jump to, and for each of its kinds of traffic a set, where that goes to more
//! networks than a few.
//!
//! A chain is called after the group and not after what the group says, so that a change of a group is
//! a change of its chain and sets alone, whoever it holds for: an element, where it is one network.

use std::collections::BTreeSet;

use policy::{EgressRule, Permissions};

use super::{Manner, allow, of};
use crate::{
    Action, AddressRange, ChainName, Nets, Observed, Rule, Ruleset, SetBody, SetName, Side, Table,
    name::digest,
    observed::{asked, target},
};

/// What all names begin with. No container's chain looks like this: after two dashes, where there are
/// any, those end in a dash and eight digits.
const PREFIX: &str = "asg--";

/// How many digits follow; so few that the chains a set is made of have room behind it.
const DIGITS: usize = 10;

/// To how many ranges of addresses traffic of one kind may go before they become a set. A packet asks a
/// rule for each of so few as fast as a set.
const FEW: usize = 8;

/// The name for what is shared under `key`. Two keys may have one name, as rarely as one time in a
/// million million; no kernel takes what is wanted then.
pub fn name(key: &str) -> ChainName {
    format!("{PREFIX}{}", &digest(key)[..DIGITS])
        .parse()
        .expect("letters, dashes and digits are a name")
}

/// The name of what is shared that a chain or set of the kernel's is, or is a part of.
pub fn owner(name: &str) -> Option<&str> {
    let digits = name.strip_prefix(PREFIX)?.get(..DIGITS)?;
    let (owner, part) = name.split_at(PREFIX.len() + DIGITS);
    let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_whole = part.is_empty() || part == "-6" || part.starts_with('.');
    (hexadecimal && is_whole).then_some(owner)
}

/// Wants `chain` to let pass what `permissions` allow, and to come back with the rest. What is to be told
/// is told of in a chain that all groups share; whose packet it is, its address says.
pub fn add(rules: &mut Ruleset, chain: &ChainName, permissions: &Permissions, manner: &Manner) {
    let told = name("told");
    let lines = permissions.rules().iter().flat_map(|rule| {
        let tells = manner.tells(rule);
        let action = if tells { Action::Jump(told.clone()) } else { Action::Accept };
        if rule.destinations.len() <= FEW {
            return allow(rule, &action);
        }
        vec![allow_from_set(rules, chain, rule, action)]
    });
    let lines = lines.collect();
    rules.chain(Table::Filter, chain.clone(), lines);
    if permissions.rules().iter().any(|rule| manner.tells(rule)) {
        rules.chain(Table::Filter, told, manner.tell_and_accept("GROUPS"));
    }
}

/// The rule that does this to what `rule` allows, to networks of a set.
fn allow_from_set(
    rules: &mut Ruleset,
    chain: &ChainName,
    rule: &EgressRule,
    action: Action,
) -> Rule {
    let EgressRule { destinations, traffic, log } = rule;
    let accept = of(traffic, Rule::new(Action::Accept));
    let set = unused(rules, &format!("{chain} {accept} {log}"));
    let nets = destinations.iter().flat_map(|range| AddressRange::from(*range).nets());
    rules.set(set.clone(), SetBody::Nets(nets.collect::<Nets>()));
    of(traffic, Rule::new(action)).in_set(&set, Side::Destination)
}

/// A name nothing else in `rules` has.
fn unused(rules: &Ruleset, key: &str) -> SetName {
    let is_free = |name: &SetName| {
        !rules.sets.contains_key(name) && !rules.chains.contains_key(&(Table::Filter, name.clone()))
    };
    let mut names =
        std::iter::once(name(key)).chain((1..).map(|other| name(&format!("{key} {other}"))));
    names.find(is_free).expect("there are endless numbers")
}

/// What is shared in the kernel and none of `roots`, chains of ours that stay as they are, leads to or
/// asks: that may be changed and removed.
pub fn in_kernel_besides(observed: &Observed, roots: BTreeSet<&str>) -> Vec<ChainName> {
    let mut needed: BTreeSet<&str> = BTreeSet::new();
    let mut to_visit: Vec<&str> = roots.into_iter().collect();
    while let Some(chain) = to_visit.pop() {
        for rule in observed.rules(Table::Filter, chain).unwrap_or_default() {
            let mentioned = target(rule).into_iter().chain(asked(rule));
            let shared = mentioned.filter(|name| owner(name).is_some());
            to_visit.extend(shared.filter(|name| needed.insert(name)));
        }
    }
    let all = observed.chains(Table::Filter).chain(observed.sets());
    let free = all.filter(|name| owner(name).is_some() && !needed.contains(name));
    free.filter_map(|name| name.strip_suffix("-6").unwrap_or(name).parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use policy::{Protocol, Traffic};

    use super::*;
    use crate::egress::manner::tests::manner;
    use crate::{Dialect, Family, Rendered};

    fn permissions(networks: u8, log: bool) -> Permissions {
        let net = |byte: u8| format!("10.0.{byte}.0/24").parse().unwrap();
        let rule = EgressRule {
            destinations: (0..networks).map(|byte| net(byte * 2)).collect(),
            traffic: Traffic::Ports(
                Protocol::Tcp,
                vec!["80".parse().unwrap(), "90-91".parse().unwrap()],
            ),
            log,
        };
        [rule].into_iter().collect()
    }

    fn group(networks: u8) -> Ruleset {
        let mut rules = Ruleset::new();
        add(&mut rules, &name("group"), &permissions(networks, false), &manner());
        rules
    }

    #[test]
    fn a_few_networks_are_rules_and_more_are_a_set() {
        insta::assert_snapshot!(group(1), @r"
        *filter
        :asg--ad936fcbed
        -A asg--ad936fcbed -p tcp -m iprange --dst-range 10.0.0.0-10.0.0.255 -m tcp --dport 80 -j ACCEPT
        -A asg--ad936fcbed -p tcp -m iprange --dst-range 10.0.0.0-10.0.0.255 -m tcp --dport 90:91 -j ACCEPT
        ");
        let rules = group(9);
        let said = rules.to_string();
        let set = rules.sets.keys().next().unwrap();
        let rule =
            format!("-p tcp -m multiport --dports 80,90:91 -m set --match-set {set} dst -j ACCEPT");
        assert_eq!(said.lines().nth(2), Some(format!("-A asg--ad936fcbed {rule}").as_str()));
        assert_eq!(said.lines().filter(|line| line.starts_with("  10.0.")).count(), 9);
    }

    #[test]
    fn what_a_group_lets_out_is_told_if_the_rule_or_the_cell_says_so() {
        let of = |networks, log, told| {
            let mut rules = Ruleset::new();
            let manner = Manner { told, ..manner() };
            add(&mut rules, &name("group"), &permissions(networks, log), &manner);
            rules.to_string()
        };
        assert_eq!(of(1, false, false), group(1).to_string());
        for rules in [of(1, true, false), of(1, false, true), of(9, true, false)] {
            let told = name("told");
            let of_group = format!("-A {} ", name("group"));
            let mut of_group = rules.lines().filter(|line| line.starts_with(&of_group));
            assert!(of_group.all(|line| line.ends_with(&format!(" -j {told}"))), "{rules}");
            assert_eq!(rules.matches("--nflog-prefix OK_GROUPS ").count(), 2, "{rules}");
            assert!(rules.contains(&format!("-A {told} -j ACCEPT\n")), "{rules}");
        }
    }

    #[test]
    fn what_is_shared_is_recognised_with_all_its_parts() {
        for dialect in [Dialect::Nft, Dialect::Iptables(Family::V4)] {
            let rendered = Rendered::new(&group(100), dialect);
            let chains = rendered.chains.keys().map(|(_, name)| name);
            for name in chains.chain(rendered.sets.keys()) {
                let owner = owner(name).unwrap_or_default();
                assert!(owner.len() == PREFIX.len() + DIGITS && name.len() <= 28, "{name}");
            }
        }
        for other in
            ["asg-web", "asg--0123abcd", "asg--0123456789-0123abcd", "asg--012345678x", "vpa--x"]
        {
            assert_eq!(owner(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_needed_by_a_chain_that_stays_is_not_free() {
        let (one, two, lone) = (name("one"), name("two"), name("lone"));
        let text = format!(
            "*filter\n:asg-web -\n:{one} -\n:{two} -\n:{two}.dst -\n:{lone} -\n:asg-db -\n-A asg-web -j {one}\n\
             -A {one} -p tcp -j {two}\n-A {two} -g {two}.dst\n-A asg-db -j {lone}\nCOMMIT\n"
        );
        let observed = Observed::parse(&text).unwrap();
        let free = |roots: &[&str]| {
            let free = in_kernel_besides(&observed, roots.iter().copied().collect());
            free.iter().map(ToString::to_string).collect::<BTreeSet<_>>()
        };
        assert_eq!(free(&["asg-web"]), [lone.to_string()].into());
        assert_eq!(free(&["asg-web", "asg-db"]), BTreeSet::new());
        assert_eq!(free(&["gone"]).len(), 4);
    }
}
