//! Chains of others, in nftables, that drop what is forwarded unless they accept it themselves: Docker's
//! `iptables -P FORWARD DROP` beside our table, or the `inet filter` of a distribution. Packets pass every
//! chain of a hook, so what containers may send dies there without a word, and nothing of ours can help it.
//!
//! Accepting there opens nothing: our own chains are passed as well. Whether others' rules refuse something
//! all the same is not asked, nor whether a table is dormant, of which nft 1.0 writes no usable JSON. Nor what
//! iptables-legacy keeps, which nftables does not show; nor IPv6.

mod listing;

use std::{
    io,
    process::{Command, Output},
};

use ipnet::Ipv4Net;
use netfilter::Backend;
use thiserror::Error;

use super::Finding;
use listing::{BaseChain, Listing, Side};

const NAME: &str = "chains of others";

/// Why it is not known which chains there are.
#[derive(Debug, Error)]
enum Unknown {
    #[error("nft cannot be run: {0}")]
    Run(#[source] io::Error),
    #[error("nft: {0}")]
    Refused(String),
    #[error("what nft lists is not understood: {0}")]
    Listing(#[from] serde_json::Error),
}

/// Whose chain `FORWARD` of `ip filter` is, which iptables writes if it drives nftables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Iptables {
    /// Where the rules of netman are.
    Ours,
    /// Somebody else's; `iptables` is the program for it.
    Foreign,
    /// Somebody else's, while `iptables` is the program for another firewall.
    Hidden,
}

/// Of a cell whose rules are in `backend`, and whose containers are in `block`, if that is known.
pub(super) fn examine(backend: Backend, block: Option<Ipv4Net>) -> Vec<Finding> {
    let iptables = match (backend, is_legacy()) {
        (_, true) => Iptables::Hidden,
        (Backend::Nftables, false) => Iptables::Foreign,
        (_, false) => Iptables::Ours,
    };
    let listed = list(&["chains"]).and_then(|text| Ok(Listing::read(&text)?));
    let told = listed.map(|listing| {
        let mut closed = closed(&listing, iptables);
        closed.retain(|chain| block.is_none_or(|block| !accepts(chain, block)));
        closed.iter().map(|chain| tell(chain, iptables, block)).collect()
    });
    judge(backend, told)
}

fn judge(backend: Backend, told: Result<Vec<Finding>, Unknown>) -> Vec<Finding> {
    match told {
        Ok(told) if told.is_empty() => {
            vec![Finding::fine(NAME, "no other table drops what containers may send")]
        }
        Ok(told) => told,
        Err(Unknown::Run(error))
            if error.kind() == io::ErrorKind::NotFound && backend != Backend::Nftables =>
        {
            vec![Finding::fine(NAME, "there is no nft, so nobody has written any by it")]
        }
        Err(error) => {
            let says = format!(
                "{error}; whether another table drops what containers may send is not known, `nft list chains` \
                 tells"
            );
            vec![Finding::warning(NAME, says)]
        }
    }
}

/// Chains that IPv4 passes on its way to and from containers, that are not netman's, and that drop by
/// default.
fn closed(listing: &Listing, iptables: Iptables) -> Vec<BaseChain> {
    let is_ours = |chain: &BaseChain| {
        chain.is("inet", "netman") || (iptables == Iptables::Ours && chain.is_of_iptables())
    };
    let chains = listing.base_chains("forward");
    chains.filter(|chain| chain.sees_ipv4() && chain.drops() && !is_ours(chain)).collect()
}

/// Whether rules of it let through what is from and what is for `block`. What cannot be read accepts
/// nothing.
fn accepts(chain: &BaseChain, block: Ipv4Net) -> bool {
    // Without the elements of sets, which may be many.
    let listed = list(&["table", &chain.family, &chain.table]);
    let listing = listed.and_then(|text| Ok(Listing::read(&text)?));
    listing.is_ok_and(|listing| {
        [Side::From, Side::To].into_iter().all(|side| listing.accepts(&chain.name, side, block))
    })
}

fn tell(chain: &BaseChain, iptables: Iptables, block: Option<Ipv4Net>) -> Finding {
    let BaseChain { family, table, name, .. } = chain;
    let block = block.map_or_else(|| "BLOCK".to_owned(), |block| block.to_string());
    let command = |side: Side| match iptables {
        Iptables::Foreign if chain.is_of_iptables() => {
            format!("iptables -I FORWARD {} {block} -j ACCEPT", side.in_iptables())
        }
        Iptables::Hidden if chain.is_of_iptables() => {
            format!("iptables-nft -I FORWARD {} {block} -j ACCEPT", side.in_iptables())
        }
        _ => format!("nft insert rule {family} {table} {name} ip {} {block} accept", side.in_nft()),
    };
    let says = format!(
        "table {family} {table} drops in its chain {name} what no rule there accepts, and none accepts all that is \
         from and for this cell's block: what containers may send dies there without a word, whatever explain \
         says. Accept it there, which opens nothing, as netman's rules are asked as well: `{}` and `{}`, and \
         wherever that table is loaded from",
        command(Side::From),
        command(Side::To)
    );
    Finding::warning(NAME, says)
}

/// What there is of something, as JSON.
fn list(what: &[&str]) -> Result<String, Unknown> {
    let Output { status, stdout, stderr } =
        Command::new("nft").args(["-j", "-t", "list"]).args(what).output().map_err(Unknown::Run)?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&stderr);
    Err(Unknown::Refused(stderr.lines().next().unwrap_or_default().trim().to_owned()))
}

/// Whether `iptables` drives the old engine, of which nftables knows nothing.
fn is_legacy() -> bool {
    let version = Command::new("iptables").arg("--version").output();
    version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("legacy"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    const CHAINS: &str = r#"{"nftables": [
        {"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
        {"chain": {"family": "inet", "table": "netman", "name": "forward", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "inet", "table": "filter", "name": "plain", "handle": 1}},
        {"chain": {"family": "inet", "table": "filter", "name": "input", "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "inet", "table": "filter", "name": "forward", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "inet", "table": "open", "name": "forward", "type": "filter", "hook": "forward", "prio": 0, "policy": "accept"}},
        {"chain": {"family": "bridge", "table": "b", "name": "forward", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "ip6", "table": "filter", "name": "FORWARD", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}}
    ]}"#;

    fn told(iptables: Iptables) -> Vec<String> {
        let closed = closed(&Listing::read(CHAINS).unwrap(), iptables);
        let block = Some("10.255.30.0/24".parse().unwrap());
        closed.iter().map(|chain| tell(chain, iptables, block).says).collect()
    }

    #[test]
    fn chains_that_drop_what_is_forwarded_are_told_unless_they_are_ours() {
        let ours = told(Iptables::Ours);
        assert_eq!(ours.len(), 1, "{ours:?}");
        assert!(ours[0].starts_with("table inet filter drops in its chain forward"), "{ours:?}");
        for command in [
            "`nft insert rule inet filter forward ip saddr 10.255.30.0/24 accept`",
            "`nft insert rule inet filter forward ip daddr 10.255.30.0/24 accept`",
        ] {
            assert!(ours[0].contains(command), "{ours:?}");
        }
    }

    #[test]
    fn forward_of_iptables_is_told_in_its_words_where_it_is_not_ours() {
        for (iptables, program) in
            [(Iptables::Foreign, "`iptables"), (Iptables::Hidden, "`iptables-nft")]
        {
            let told = told(iptables);
            assert_eq!(told.len(), 2, "{told:?}");
            let says = &told[1];
            for side in ["-s", "-d"] {
                let command = format!("{program} -I FORWARD {side} 10.255.30.0/24 -j ACCEPT`");
                assert!(says.contains(&command), "{says}");
            }
        }
    }

    #[test]
    fn what_cannot_be_listed_is_a_warning_unless_there_can_be_nothing() {
        let verdict = |backend, unknown| judge(backend, Err(unknown))[0].verdict;
        let absent = || Unknown::Run(io::ErrorKind::NotFound.into());
        assert_eq!(verdict(Backend::Iptables, absent()), Verdict::Fine);
        assert_eq!(verdict(Backend::Nftables, absent()), Verdict::Warning);
        let refused = Unknown::Refused("Operation not permitted".into());
        assert_eq!(verdict(Backend::Iptables, refused), Verdict::Warning);
        assert_eq!(judge(Backend::Iptables, Ok(Vec::new()))[0].verdict, Verdict::Fine);
    }
}
