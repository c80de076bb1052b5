use std::{net::Ipv4Addr, num::NonZeroU16, ops::RangeInclusive};

use thiserror::Error;

use crate::{
    config::Config,
    handle::Handle,
    host::{Host, HostError},
    rules::Mapped,
    undo::Undo,
    verb::{ChangeError, change, live},
    wire,
};

/// A mapping that was asked for: from a port of the caller's choice, or any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub host_port: Option<NonZeroU16>,
    /// `None` is the same as the host's.
    pub container_port: Option<NonZeroU16>,
}

/// A mapping that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum InvalidMapping {
    #[error("cannot specify port from allocation range")]
    FromRange,
    #[error("{0} is not a port")]
    NoPort(u32),
}

/// Why a port was not mapped.
#[derive(Debug, Error)]
pub(crate) enum NetInError {
    #[error(transparent)]
    Invalid(#[from] InvalidMapping),
    #[error("{0:?} is not an IPv4 address of this host")]
    HostAddress(String),
    #[error("allocating a port")]
    Allocate(#[source] HostError),
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// Maps one more port to a container that is up.
pub(crate) fn net_in(
    host: &dyn Host,
    config: &Config,
    handle: &Handle,
    request: &wire::NetInRequest,
) -> Result<wire::PortMapping, NetInError> {
    let wire::NetInRequest { host_ip, host_port, container_ip, container_port } = request;
    let mapping = wire::PortMapping { host_port: *host_port, container_port: *container_port };
    let wanted = Wanted::check(mapping, &config.ports.range)?;
    let address = match host_ip.as_str() {
        "" => config.cell.address,
        text => text.parse().map_err(|_| NetInError::HostAddress(text.to_owned()))?,
    };
    let (before, mut live) = live(host, handle, container_ip)?;

    let mut undo = Undo::new(host);
    let ports = match wanted.host_port {
        Some(_) => Vec::new(),
        None => host.acquire_ports(handle, 1).map_err(NetInError::Allocate)?,
    };
    for port in ports.clone() {
        undo.or("releasing a port", move |host| host.release_port(handle, port));
    }
    let mapped = assign(&[wanted], &ports, address);
    for new in &mapped {
        if !live.mapped.contains(new) {
            live.mapped.push(*new);
        }
    }
    let mut after = before.clone();
    after.ports.extend(ports);
    after.live = Some(live);
    change(host, config, &before, &after)?;
    undo.keep();
    let Mapped { host_ip: _, host_port, container_port } = mapped[0];
    Ok(wire::PortMapping { host_port: host_port.into(), container_port: container_port.into() })
}

/// Pairs what was wanted with the ports that were given out, in order.
pub(super) fn assign(wanted: &[Wanted], ports: &[u16], address: Ipv4Addr) -> Vec<Mapped> {
    let mut ports = ports.iter().copied();
    let assign = |wanted: &Wanted| {
        let host_port = wanted.host_port.map(NonZeroU16::get).or_else(|| ports.next())?;
        let container_port = wanted.container_port.map_or(host_port, NonZeroU16::get);
        Some(Mapped { host_ip: address, host_port, container_port })
    };
    wanted.iter().filter_map(assign).collect()
}

impl Wanted {
    /// The rules of 2016 (spec/cell.md §B.4): a port of one's own choice must not be one of the pool.
    pub fn check(
        mapping: wire::PortMapping,
        pool: &RangeInclusive<u16>,
    ) -> Result<Self, InvalidMapping> {
        let wire::PortMapping { host_port, container_port } = mapping;
        let port = |number| u16::try_from(number).map_err(|_| InvalidMapping::NoPort(number));
        let (host_port, container_port) = (port(host_port)?, port(container_port)?);
        if pool.contains(&host_port) {
            return Err(InvalidMapping::FromRange);
        }
        Ok(Self {
            host_port: NonZeroU16::new(host_port),
            container_port: NonZeroU16::new(container_port),
        })
    }
}
