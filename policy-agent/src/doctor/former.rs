//! Containers whose rules stand in the firewall that is not configured: the networker takes them along
//! when it is next called for any container, unless something is in the way.

use netfilter::{Backend, Kernel, Observed, Table, egress};

use super::{Finding, cell::Stored};
use crate::backend;

/// How the chains begin that the networker, or the CNI wrapper, writes for a container.
const PREFIXES: [&str; 4] = ["netout--", "overlay--", "input--", "netin--"];

/// On a cell whose rules are in `written`.
pub(super) fn examine(written: Backend, stored: &Stored) -> Finding {
    let other = backend::other_than(written);
    // That it cannot be read is said elsewhere.
    let contents = stored.iter().flatten().flat_map(|contents| &contents.containers);
    let handles: Vec<_> = contents.map(|one| one.handle.clone()).collect();
    match other.open(None).and_then(|mut kernel: Box<dyn Kernel>| kernel.observe()) {
        Ok(observed) => judge(other, &observed, &handles),
        Err(_) => {
            Finding::fine("former firewall", format!("there is no {other} that could hold rules"))
        }
    }
}

fn judge(other: Backend, observed: &Observed, handles: &[String]) -> Finding {
    let chains = observed.chains(Table::Filter);
    let of_containers: Vec<_> =
        chains.filter(|chain| PREFIXES.iter().any(|prefix| chain.starts_with(prefix))).collect();
    if of_containers.is_empty() {
        let says = format!("no container has rules in {other}, which is not configured");
        return Finding::fine("former firewall", says);
    }
    let is_there = |handle: &&String| {
        let (ours, cut) = (egress::netout_chain(handle), format!("netout--{handle}"));
        let cut: String = cut.chars().take(28).collect();
        of_containers.iter().any(|chain| *chain == ours.as_str() || *chain == cut)
    };
    let there: Vec<_> = handles.iter().filter(is_there).map(String::as_str).collect();
    let who = match there.as_slice() {
        [] => format!("{} chains of containers that are gone", of_containers.len()),
        some => format!("containers {} have rules", some.join(", ")),
    };
    let says = format!(
        "{who} in {other}, which is not configured; the networker moves them when it is next called"
    );
    Finding::warning("former firewall", says)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn judged(chains: &[&str], handles: &[&str]) -> Finding {
        let lines: String = chains.iter().map(|chain| format!(":{chain} - [0:0]\n")).collect();
        let observed = Observed::parse(&format!("*filter\n{lines}COMMIT\n")).unwrap();
        let handles: Vec<_> = handles.iter().map(|handle| (*handle).to_owned()).collect();
        judge(Backend::Iptables, &observed, &handles)
    }

    #[test]
    fn containers_in_the_other_firewall_are_named() {
        assert_eq!(judged(&["vpa--forward", "DOCKER"], &["web"]).verdict, Verdict::Fine);
        let long = "3f1c0a52-6d8e-4b7a-5c21-9e04";
        let chains = ["netout--web", "netout--3f1c0a52-6d8e-4b7a-5", "overlay--gone"];
        let found = judged(&chains, &["web", long, "db"]);
        assert_eq!(found.verdict, Verdict::Warning);
        assert!(
            found.says.starts_with(&format!("containers web, {long} have rules")),
            "{}",
            found.says
        );
        let gone = judged(&["overlay--gone"], &["web"]);
        assert!(gone.says.contains("1 chains of containers that are gone"), "{}", gone.says);
    }
}
