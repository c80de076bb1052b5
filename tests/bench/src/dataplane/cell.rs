//! A cell: a network namespace that forwards between two others, which stand for containers. What is
//! measured crosses it, as packets of one container to another of the same cell do.
//!
//! ```text
//!  client (netns) 10.255.30.2 ── cell (netns) ── 10.255.30.3 server (netns)
//!                                 │ eth0 10.0.16.n
//!                              underlay (netns): a bridge, 10.0.16.10, and on it the policy server
//! ```

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use testkit::netns::{Netns, sysctl};

use super::shape::{CLIENT, SERVER};

/// Where the policy server listens.
pub(super) const UNDERLAY: Ipv4Addr = Ipv4Addr::new(10, 0, 16, 10);

/// Containers know no other address of the cell.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 255, 30, 1);

/// Connections the kernel may remember; more than are made between two flushes.
const CONNECTIONS: &str = "1048576";

/// A cell without rules.
#[derive(Debug)]
pub(super) struct Cell {
    pub name: &'static str,
    pub host: Netns,
    pub client: Netns,
    pub server: Netns,
}

/// The network all cells are on.
pub(super) fn underlay() -> Result<Netns> {
    let underlay = Netns::create("underlay")?;
    underlay.run("ip", ["link", "add", "br0", "type", "bridge"])?;
    underlay.run("ip", ["address", "add", &format!("{UNDERLAY}/24"), "dev", "br0"])?;
    underlay.run("ip", ["link", "set", "br0", "up"])?;
    Ok(underlay)
}

impl Cell {
    /// The cell at 10.0.16.`number`.
    pub fn new(name: &'static str, underlay: &Netns, number: u8) -> Result<Self> {
        let within = |role: &str| Netns::create(&format!("{name}-{role}"));
        let cell = Self {
            name,
            host: within("host")?,
            client: within("client")?,
            server: within("server")?,
        };
        join(&cell.host, "eth0", underlay, name)?;
        let address = format!("10.0.16.{number}/24");
        cell.host.run("ip", ["address", "add", &address, "dev", "eth0"])?;
        cell.host.run("ip", ["link", "set", "eth0", "up"])?;
        underlay.run("ip", ["link", "set", name, "master", "br0", "up"])?;
        sysctl(&cell.host, "net/ipv4/ip_forward", "1")?;
        for (netns, role, address) in
            [(&cell.client, "client", CLIENT), (&cell.server, "server", SERVER)]
        {
            cell.plug(netns, role, address)?;
        }
        Ok(cell)
    }

    /// Wires a container, as the CNI plugin `ptp` does.
    fn plug(&self, netns: &Netns, role: &str, address: Ipv4Addr) -> Result<()> {
        join(netns, "eth0", &self.host, role)?;
        let (address, gateway) = (address.to_string(), GATEWAY.to_string());
        netns.run("ip", ["address", "add", &format!("{address}/32"), "dev", "eth0"])?;
        netns.run("ip", ["link", "set", "eth0", "up"])?;
        netns.run("ip", ["route", "add", &gateway, "dev", "eth0", "scope", "link"])?;
        netns.run("ip", ["route", "add", "default", "via", &gateway])?;
        self.host.run("ip", ["address", "add", &format!("{GATEWAY}/32"), "dev", role])?;
        self.host.run("ip", ["link", "set", role, "up"])?;
        self.host.run("ip", ["route", "add", &format!("{address}/32"), "dev", role])?;
        Ok(())
    }

    /// Has the kernel remember connections, as on any cell, and nothing else.
    pub fn only_tracks(&self) -> Result<()> {
        let rule = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
        self.host.run("iptables-nft", rule.split(' '))?;
        Ok(())
    }

    /// Makes the kernel forget all connections.
    pub fn forget_connections(&self) -> Result<()> {
        // Only the first network namespace may set it, and it holds for all.
        let _ = std::fs::write("/proc/sys/net/netfilter/nf_conntrack_max", CONNECTIONS);
        self.host.run("conntrack", ["--flush"]).context("forgetting connections")?;
        Ok(())
    }
}

/// A link from `netns` to `other`.
fn join(netns: &Netns, name: &str, other: &Netns, name_there: &str) -> Result<()> {
    let path = other.path().to_string_lossy();
    let there = path.rsplit('/').next().context("a namespace path ends in its name")?;
    let words = ["link", "add", name, "type", "veth", "peer", "name", name_there, "netns", there];
    netns.run("ip", words)?;
    Ok(())
}
