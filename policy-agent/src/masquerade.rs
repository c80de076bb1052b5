//! The agent of 2016 masqueraded all containers of the cell by one rule, in a chain of its own that is
//! called after the time it was made (spec/cell.md §D.3). Since then the networker does so for each of its
//! containers. Those of 2016 have nothing else, and their connections to the world must go on: the chain
//! stays until no container needs it.

use std::{collections::BTreeSet, net::Ipv4Addr};

use netfilter::{Builtin, Dialect, Observed, Plan, Step, Table};

/// What that chain is called.
pub(crate) const PREFIX: &str = "vpa--masq-";

/// How the chain goes, if it is there and every container has a rule of its own.
pub(crate) fn superseded(
    observed: &Observed,
    containers: &BTreeSet<Ipv4Addr>,
    dialect: Dialect,
) -> Option<Plan> {
    let chains: Vec<_> =
        observed.chains(Table::Nat).filter(|chain| chain.starts_with(PREFIX)).collect();
    if chains.is_empty() || containers.iter().any(|ip| !has_its_own(observed, *ip)) {
        return None;
    }
    let parent = Builtin::Postrouting.to_string();
    let rules = observed.rules(Table::Nat, &parent).unwrap_or_default();
    let leads = |rule: &&String| {
        let to = rule.rsplit([' ', '/']).next();
        to.is_some_and(|to| chains.contains(&to))
    };
    let jumps = rules.iter().filter(leads).map(|rule| Step::Delete(parent.clone(), rule.clone()));
    let emptied = chains.iter().map(|chain| Step::Declare((*chain).to_owned()));
    let removed = chains.iter().map(|chain| Step::Remove((*chain).to_owned()));
    Some(Plan::of(dialect, Table::Nat, jumps.chain(emptied).chain(removed).collect()))
}

/// The networker's, or the CNI wrapper's (spec/cell.md §C.6): about the one address, in the shared chain.
fn has_its_own(observed: &Observed, ip: Ipv4Addr) -> bool {
    let rules = observed.rules(Table::Nat, &Builtin::Postrouting.to_string()).unwrap_or_default();
    let (iptables, nft) = (format!("-s {ip}/32 "), format!("ip saddr {ip} "));
    rules.iter().any(|rule| {
        let is_about = rule.starts_with(&iptables) || rule.starts_with(&nft);
        is_about && (rule.ends_with("-j MASQUERADE") || rule.contains(" masquerade"))
    })
}

#[cfg(test)]
mod tests {
    use netfilter::Family;

    use super::*;

    const OF_2016: &str = "\
*nat
:POSTROUTING ACCEPT [0:0]
:vpa--masq-1478490000 - [0:0]
-A POSTROUTING -j vpa--masq-1478490000
-A vpa--masq-1478490000 -s 10.255.30.0/24 ! -d 10.255.0.0/16 -j MASQUERADE
COMMIT
";

    fn plan(rules: &str, containers: &[&str]) -> Option<String> {
        let text = OF_2016.replace("COMMIT", &format!("{rules}COMMIT"));
        let containers = containers.iter().map(|ip| ip.parse().unwrap()).collect();
        let observed = Observed::parse(&text).unwrap();
        let plan = superseded(&observed, &containers, Dialect::Iptables(Family::V4));
        plan.map(|plan| plan.render())
    }

    #[test]
    fn the_chain_of_2016_goes_once_every_container_has_a_rule_of_its_own() {
        let (old, new) = ("10.255.30.2", "10.255.30.3");
        let own = "-A POSTROUTING -s 10.255.30.3/32 ! -d 10.255.0.0/16 ! -o silk-vtep -m comment --comment masq--new -j MASQUERADE\n";
        assert_eq!(plan("", &[old]), None);
        assert_eq!(plan(own, &[old, new]), None);
        let gone = plan(own, &[new]).unwrap();
        insta::assert_snapshot!(gone, @r"
        *nat
        -D POSTROUTING -j vpa--masq-1478490000
        :vpa--masq-1478490000 - [0:0]
        -X vpa--masq-1478490000
        COMMIT
        ");
        assert_eq!(plan("", &[]), Some(gone));
        let none = Observed::parse("*nat\n:POSTROUTING ACCEPT\nCOMMIT\n").unwrap();
        assert_eq!(superseded(&none, &BTreeSet::new(), Dialect::Iptables(Family::V4)), None);
    }
}
