//! IPv6 on a world's underlay, for its first cell and the hosts outside.
//!
//! ```text
//!  containers fd00:255:0:1::/64 ── cell-1 fd00:16::14 ──┬── outside-a fd00:16::100
//!                                                       └── outside-b fd00:16::101
//! ```

use std::net::Ipv6Addr;

use anyhow::Result;

use super::{Cell, World};
use crate::daemon::Daemon;
use crate::netns::sysctl;

/// Where containers of all cells have their second addresses.
pub const NETWORK: &str = "fd00:255::/48";
/// Those of the first cell's.
const BLOCK: &str = "fd00:255:0:1::/64";

/// A world with IPv6, and servers that answer over it; they end when dropped.
pub struct Dual<'w> {
    cell: &'w Cell,
    _servers: Vec<Daemon>,
}

/// An address of the underlay, whose end is that of the one of IPv4.
fn second(last: u8) -> Ipv6Addr {
    format!("fd00:16::{last}").parse().expect("is an address")
}

impl World {
    /// Gives the underlay IPv6, and containers of the first cell second addresses by their plugin; whether
    /// anybody makes use of these is for the programs' configuration to say.
    pub fn with_ipv6(&self) -> Result<Dual<'_>> {
        let (cell, a, b) = (self.cell(1), self.outside_a(), self.outside_b());
        let own = |netns: &crate::netns::Netns, last: u8| {
            let address = format!("{}/64", second(last));
            netns.run("ip", ["-6", "address", "add", &address, "dev", "eth0", "nodad"])
        };
        let [last, last_a, last_b] =
            [cell.address(), a.address(), b.address()].map(|address| address.octets()[3]);
        own(cell.netns(), last)?;
        sysctl(cell.netns(), "net/ipv6/conf/all/forwarding", "1")?;
        // Nobody waits for the host to find out that its address on a new link is free: for a second or
        // two, what is sent to it is lost.
        sysctl(cell.netns(), "net/ipv6/conf/default/dad_transmits", "0")?;
        // As of IPv4: a matrix of attempts would see refusals as time-outs.
        sysctl(cell.netns(), "net/ipv6/icmp/ratelimit", "0")?;
        let gateway = second(last).to_string();
        for (outside, last) in [(a, last_a), (b, last_b)] {
            own(outside.netns(), last)?;
            outside.netns().run("ip", ["-6", "route", "add", NETWORK, "via", &gateway])?;
        }
        let servers = vec![
            cell.answers_at(second(last), &super::outside::PORTS)?,
            a.answers_at(second(last_a).into())?,
            b.answers_at(second(last_b).into())?,
        ];
        cell.plug_dual(BLOCK, false)?;
        Ok(Dual { cell, _servers: servers })
    }

    /// The same, and the programs of the first cell are told to filter it.
    pub fn dual_stack(&self) -> Result<Dual<'_>> {
        let dual = self.with_ipv6()?;
        let cell = self.cell(1);
        cell.configure_networker("dual_stack", true)?;
        cell.configure_networker("container_network_v6", NETWORK)?;
        cell.configure_agent("dual_stack", true)?;
        cell.configure_agent("container_network_v6", NETWORK)?;
        cell.restart_agent()?;
        Ok(dual)
    }
}

impl Dual<'_> {
    /// From now on containers are plugged into one bridge.
    pub fn use_a_bridge(&self) -> Result<()> {
        self.cell.plug_dual(BLOCK, true)
    }

    /// The first cell's address.
    pub fn host(&self) -> Ipv6Addr {
        second(14)
    }

    /// That of the first host outside.
    pub fn outside_a(&self) -> Ipv6Addr {
        second(100)
    }

    /// And of the second.
    pub fn outside_b(&self) -> Ipv6Addr {
        second(101)
    }
}
