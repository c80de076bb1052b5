//! A host beside the cells, that belongs to nobody: a database of old, a router.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::binaries;
use crate::daemon::Daemon;
use crate::netns::Netns;
use crate::probe::{self, Dialled, Outcome};
use crate::reach::{Port, tcp};

/// What hosts answer on, TCP and UDP alike.
pub const PORTS: [u16; 2] = [8080, 5432];

/// A host on the underlay with a probe server.
pub struct Outside {
    address: Ipv4Addr,
    _server: Daemon,
    netns: Netns,
}

impl Outside {
    pub(super) fn start(name: &str, netns: Netns, address: Ipv4Addr, logs: &Path) -> Result<Self> {
        let server = answering(name, &netns, address.into(), logs)?;
        Ok(Self { address, _server: server, netns })
    }

    /// Its address on the underlay.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Tries to reach something from here.
    pub fn dial(&self, to: impl Into<IpAddr>, port: Port) -> Result<Dialled> {
        let (Port { transport, number }, to) = (port, to.into());
        self.netns.inside(|| probe::dial(transport, to, number, Duration::from_secs(2)))
    }
}

/// A probe server in the namespace of a host; returns once it answers. One for an address of IPv6 listens
/// there alone.
pub(super) fn answering(name: &str, netns: &Netns, address: IpAddr, logs: &Path) -> Result<Daemon> {
    let (probe, within, own) = (binaries::path("probe")?, netns.clone(), name.to_owned());
    let mut server = Daemon::new(name, logs, move || {
        let mut command = within.command(&probe);
        command.args(["serve", "--name", &own]);
        if address.is_ipv6() {
            command.args(["--bind", &address.to_string()]);
        }
        for port in PORTS.map(|port| port.to_string()) {
            command.args(["--tcp", &port, "--udp", &port]);
        }
        command
    });
    server.start()?;
    server.until(&format!("{name} answers"), || {
        let seen = netns.inside(|| {
            let Port { transport, number } = tcp(PORTS[0]);
            probe::dial(transport, address, number, Duration::from_secs(1))
        })?;
        ensure!(seen.outcome == Outcome::Open, "{seen}");
        Ok(())
    })?;
    Ok(server)
}
