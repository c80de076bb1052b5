//! A host beside the cells, that belongs to nobody: a database of old, a router.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

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
    logs: PathBuf,
}

impl Outside {
    pub(super) fn start(name: &str, netns: Netns, address: Ipv4Addr, logs: &Path) -> Result<Self> {
        let server = answering(name, &netns, Door::everywhere(address, &PORTS), logs)?;
        Ok(Self { address, _server: server, netns, logs: logs.to_owned() })
    }

    /// Its address on the underlay.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Answers on one more port, TCP and UDP, until dropped.
    pub fn answers_on(&self, port: u16) -> Result<Daemon> {
        let name = format!("outside-{}-{port}", self.address);
        answering(&name, &self.netns, Door::everywhere(self.address, &[port]), &self.logs)
    }

    /// Answers on another address of its own, too.
    pub(super) fn answers_at(&self, address: IpAddr) -> Result<Daemon> {
        let name = format!("outside-{}-second", self.address);
        answering(&name, &self.netns, Door::at(address, &PORTS), &self.logs)
    }

    /// Tries to reach something from here.
    pub fn dial(&self, to: impl Into<IpAddr>, port: Port) -> Result<Dialled> {
        let (Port { transport, number }, to) = (port, to.into());
        self.netns.inside(|| probe::dial(transport, to, number, Duration::from_secs(2)))
    }
}

/// Where a probe server of a host is to be found: on these ports of all addresses, or of this one only.
#[derive(Clone, Copy)]
pub(super) struct Door<'a> {
    address: IpAddr,
    is_all: bool,
    ports: &'a [u16],
}

impl<'a> Door<'a> {
    /// On all addresses of IPv4, of which this is one.
    pub fn everywhere(address: Ipv4Addr, ports: &'a [u16]) -> Self {
        Self { address: address.into(), is_all: true, ports }
    }

    /// On this address only, under which datagrams are answered as well.
    pub fn at(address: IpAddr, ports: &'a [u16]) -> Self {
        Self { address, is_all: false, ports }
    }
}

/// A probe server in the namespace of a host; returns once it answers.
pub(super) fn answering(name: &str, netns: &Netns, door: Door<'_>, logs: &Path) -> Result<Daemon> {
    let Door { address, is_all, ports } = door;
    let (probe, within, own) = (binaries::path("probe")?, netns.clone(), name.to_owned());
    let first = *ports.first().context("a server without ports")?;
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    let mut server = Daemon::new(name, logs, move || {
        let mut command = within.command(&probe);
        command.args(["serve", "--name", &own]);
        if !is_all {
            command.args(["--bind", &address.to_string()]);
        }
        for port in &ports {
            command.args(["--tcp", port, "--udp", port]);
        }
        command
    });
    server.start()?;
    server.until(&format!("{name} answers"), || {
        let seen = netns.inside(|| {
            let Port { transport, number } = tcp(first);
            probe::dial(transport, address, number, Duration::from_secs(1))
        })?;
        ensure!(seen.outcome == Outcome::Open, "{seen}");
        Ok(())
    })?;
    Ok(server)
}
