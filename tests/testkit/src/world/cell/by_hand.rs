//! Somebody's hand in the packet filter of a cell.

use anyhow::{Context, Result};

use super::Cell;
use crate::world::Firewall;

impl Cell {
    /// Changes the packet filter by hand, in the words of the one that is written: arguments of
    /// `iptables`, or of `nft`.
    pub fn meddle(&self, iptables: &str, nft: &str) -> Result<()> {
        let (program, words) = match Firewall::of_this_run() {
            Firewall::Iptables => ("iptables", iptables),
            Firewall::Nftables => ("nft", nft),
        };
        self.netns.run(program, words.split(' ')).map(drop)
    }

    /// Deletes the rule of a chain, such as `filter/FORWARD`, that stands at a place, counted from 0.
    pub fn delete_rule(&self, chain: &str, place: usize) -> Result<()> {
        let (table, name) = chain.split_once('/').context("a chain is named with its table")?;
        let iptables = format!("-t {table} -D {name} {}", place + 1);
        self.meddle(
            &iptables,
            &format!("delete rule inet netman {chain} {}", self.nth(chain, place)?),
        )
    }

    /// Puts a rule in the place of another, in the words of a listing.
    pub fn replace_rule(&self, chain: &str, place: usize, rule: &str) -> Result<()> {
        let (table, name) = chain.split_once('/').context("a chain is named with its table")?;
        let iptables = format!("-t {table} -R {name} {} {}", place + 1, unquoted(rule));
        let nth = self.nth(chain, place)?;
        self.meddle(&iptables, &format!("replace rule inet netman {chain} {nth} {rule}"))
    }

    /// Puts a rule in front of a chain's, in the words of a listing.
    pub fn insert_rule(&self, chain: &str, rule: &str) -> Result<()> {
        let (table, name) = chain.split_once('/').context("a chain is named with its table")?;
        let iptables = format!("-t {table} -I {name} 1 {}", unquoted(rule));
        self.meddle(&iptables, &format!("insert rule inet netman {chain} {rule}"))
    }

    /// How nft calls a rule; iptables can count.
    fn nth(&self, chain: &str, place: usize) -> Result<String> {
        if Firewall::of_this_run() == Firewall::Iptables {
            return Ok(String::new());
        }
        let listing = self.netns.run("nft", ["-a", "list", "chain", "inet", "netman", chain])?;
        let is_rule =
            |line: &&str| !line.trim_end().ends_with('}') && !line.contains(" { # handle");
        let mut rules = listing.lines().filter(is_rule).filter(|line| line.contains(" # handle "));
        let rule = rules.nth(place).with_context(|| format!("no rule {place} in {chain}"))?;
        let handle = rule.split(" # handle ").nth(1).context("nft tells no handle")?;
        Ok(format!("handle {handle}"))
    }

    /// The agent's jump from FORWARD, taken away by hand.
    pub fn unhook_agent(&self) -> Result<()> {
        self.unhook("FORWARD", "vpa--forward")
    }

    /// A jump from one chain of the filter to another, taken away by hand.
    pub fn unhook(&self, from: &str, to: &str) -> Result<()> {
        let nft = match Firewall::of_this_run() {
            Firewall::Iptables => String::new(),
            Firewall::Nftables => {
                let chain = format!("filter/{from}");
                let words = ["-a", "list", "chain", "inet", "netman", &chain];
                let listing = self.netns.run("nft", words)?;
                let jump =
                    listing.lines().find(|line| line.contains(&format!("jump filter/{to} ")));
                let handle = jump.and_then(|line| line.split("# handle ").nth(1));
                let handle = handle.with_context(|| format!("there is no jump to {to}"))?;
                format!("delete rule inet netman {chain} handle {handle}")
            }
        };
        self.meddle(&format!("-D {from} -j {to}"), &nft)
    }
}

/// Without the quotes a shell would take away.
fn unquoted(rule: &str) -> String {
    rule.replace('"', "")
}
