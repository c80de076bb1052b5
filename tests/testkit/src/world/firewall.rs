//! The packet filter of a cell, whichever of the two is written, as values that can be compared.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use crate::netns::Netns;

/// What the cells of this run write: iptables, or nftables with `NETMAN_BACKEND=nftables`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firewall {
    /// The default.
    Iptables,
    /// A table of our own.
    Nftables,
}

/// Chains with their rules and sets with their elements, by name: a chain is `filter/vpa--forward` in
/// either. Counters are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    chains: BTreeMap<String, Vec<String>>,
    sets: BTreeMap<String, String>,
}

impl Firewall {
    /// Which of the two.
    ///
    /// # Panics
    /// If `NETMAN_BACKEND` names neither: a story told of the wrong firewall proves nothing.
    pub fn of_this_run() -> Self {
        let named = std::env::var_os("NETMAN_BACKEND");
        let named = named.as_deref().map(std::ffi::OsStr::to_string_lossy);
        Self::named(named.as_deref()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What is said with iptables, or with nftables.
    pub fn either<T>([iptables, nftables]: [T; 2]) -> T {
        match Self::of_this_run() {
            Self::Iptables => iptables,
            Self::Nftables => nftables,
        }
    }

    fn named(name: Option<&str>) -> Result<Self> {
        match name {
            None | Some("iptables") => Ok(Self::Iptables),
            Some("nftables") => Ok(Self::Nftables),
            Some(other) => bail!("NETMAN_BACKEND is {other:?}; it can be iptables or nftables"),
        }
    }

    /// As configurations name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }

    /// What stands in a namespace, as the program of this firewall prints it.
    pub(super) fn list(self, netns: &Netns) -> Result<String> {
        match self {
            Self::Iptables => netns.run("iptables-save", [] as [&str; 0]),
            Self::Nftables => {
                let tables = netns.run("nft", ["list", "tables"])?;
                let ours = tables.lines().filter(|table| table.ends_with(" netman"));
                let list = |table: &str| {
                    let words = ["-s", "list"].into_iter().chain(table.split(' '));
                    netns.run("nft", words)
                };
                ours.map(list).collect()
            }
        }
    }

    /// The same as values.
    pub(super) fn listing(self, netns: &Netns) -> Result<Listing> {
        let text = self.list(netns)?;
        let read = match self {
            Self::Iptables => Listing::of_iptables(&text),
            Self::Nftables => Listing::of_nft(&text),
        };
        read.with_context(|| format!("cannot read this listing:\n{text}"))
    }
}

impl Listing {
    /// The rules of a chain, such as `filter/FORWARD`.
    pub fn chain(&self, name: &str) -> &[String] {
        self.chains.get(name).map_or(&[], Vec::as_slice)
    }

    /// The names of chains that are not the kernel's own.
    pub fn chains(&self) -> impl Iterator<Item = &str> {
        let own = |name: &&str| name.contains('-');
        self.chains.keys().map(String::as_str).filter(own)
    }

    /// What of it is called like this, without its table.
    pub fn of(&self, prefix: &str) -> Self {
        let is_called = |name: &String| {
            name.split_once('/').map_or(name.as_str(), |(_, name)| name).starts_with(prefix)
        };
        let chains = self.chains.iter().filter(|(name, _)| is_called(name));
        let sets = self.sets.iter().filter(|(name, _)| is_called(name));
        Self {
            chains: chains.map(|(name, rules)| (name.clone(), rules.clone())).collect(),
            sets: sets.map(|(name, elements)| (name.clone(), elements.clone())).collect(),
        }
    }

    /// What nft lists of a set or map.
    pub fn set(&self, name: &str) -> Option<&str> {
        self.sets.get(name).map(String::as_str)
    }

    /// The names of sets and maps.
    pub fn sets(&self) -> impl Iterator<Item = &str> {
        self.sets.keys().map(String::as_str)
    }

    /// The chains and sets that are not the same in another.
    pub fn differences<'a>(&'a self, other: &'a Self) -> std::collections::BTreeSet<&'a str> {
        let differ = |one: &'a Self, other: &'a Self| {
            let chains =
                one.chains.iter().filter(|(name, rules)| other.chains.get(*name) != Some(rules));
            let sets = one.sets.iter().filter(|(name, all)| other.sets.get(*name) != Some(all));
            chains.map(|(name, _)| name.as_str()).chain(sets.map(|(name, _)| name.as_str()))
        };
        differ(self, other).chain(differ(other, self)).collect()
    }

    /// How many rules there are in all chains.
    pub fn rules(&self) -> usize {
        self.chains.values().map(Vec::len).sum()
    }

    fn of_iptables(text: &str) -> Option<Self> {
        let (mut listing, mut table) = (Self::default(), "");
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name;
            } else if let Some(line) = line.strip_prefix(':') {
                let chain = format!("{table}/{}", line.split(' ').next()?);
                listing.chains.insert(chain, Vec::new());
            } else if let Some(line) = line.strip_prefix("-A ") {
                let (chain, rule) = line.split_once(' ')?;
                let rules = listing.chains.get_mut(&format!("{table}/{chain}"))?;
                rules.push(rule.to_owned());
            }
        }
        Some(listing)
    }

    fn of_nft(text: &str) -> Option<Self> {
        let mut listing = Self::default();
        let mut lines = text.lines().map(str::trim);
        while let Some(line) = lines.next() {
            let Some(head) = line.strip_suffix(" {") else { continue };
            let (what, name) = head.split_once(' ')?;
            if what == "table" {
                continue;
            }
            let body: Vec<_> = lines.by_ref().take_while(|line| *line != "}").collect();
            if what == "chain" {
                let rules = body.into_iter().filter(|line| !line.starts_with("type "));
                listing.chains.insert(name.to_owned(), rules.map(str::to_owned).collect());
            } else {
                listing.sets.insert(name.to_owned(), body.join(" "));
            }
        }
        Some(listing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_firewall_that_is_misspelt_is_none() {
        assert_eq!(Firewall::named(None).unwrap(), Firewall::Iptables);
        for firewall in [Firewall::Iptables, Firewall::Nftables] {
            assert_eq!(Firewall::named(Some(firewall.name())).unwrap(), firewall);
        }
        for misspelt in ["", "nft", "nftable", "NFTABLES", "iptables "] {
            assert!(Firewall::named(Some(misspelt)).is_err(), "{misspelt:?}");
        }
    }

    #[test]
    fn both_listings_name_chains_and_rules_alike() {
        let iptables = "\
# Generated by iptables-save v1.8.9 (nf_tables) on Thu Nov 26 04:00:00 2026
*filter
:INPUT ACCEPT [12:345]
:FORWARD ACCEPT [0:0]
:vpa--forward - [0:0]
-A FORWARD -j vpa--forward
-A vpa--forward -d 10.255.1.0/24 -j REJECT
COMMIT
";
        let nft = "\
table inet netman {
\tset vpa--to-web {
\t\ttype mark . inet_proto . inet_service
\t\telements = { 0x00000001 . tcp . 80,
\t\t\t     0x00000002 . tcp . 80 }
\t}

\tchain filter/FORWARD {
\t\ttype filter hook forward priority filter; policy accept;
\t\tjump filter/vpa--forward
\t}

\tchain filter/vpa--forward {
\t\tip daddr 10.255.1.0/24 reject
\t}
}
";
        let (iptables, nft) =
            (Listing::of_iptables(iptables).unwrap(), Listing::of_nft(nft).unwrap());
        for listing in [&iptables, &nft] {
            assert_eq!(listing.chains().collect::<Vec<_>>(), ["filter/vpa--forward"]);
            assert_eq!((listing.chain("filter/FORWARD").len(), listing.rules()), (1, 2));
        }
        assert!(nft.sets["vpa--to-web"].contains("0x00000002"));
    }
}
