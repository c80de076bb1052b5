//! Datagrams to the platform's metron agent, one per value or count (spec/policy-server.md §11).
//!
//! Telling must never hold up or fail what is told of: a datagram the kernel has no room for is
//! dropped, and one that nobody receives is lost. [`emitter`] tells what is told regularly.

pub(crate) mod emitter;
mod envelope;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, SystemTime},
};

use prost::Message;
use thiserror::Error;
use tokio::net::lookup_host;

use envelope::{CounterEvent, Envelope, EventType, ValueMetric};

/// Longer datagrams than metron takes are not sent.
const LONGEST: usize = 1023;

/// The job that tells, by the name the existing system gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name says which job it is")]
pub enum Origin {
    PolicyServer,
    PolicyServerInternal,
    AsgSyncer,
}

/// In what a value is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Milliseconds,
    /// Things, where the existing system leaves the unit empty.
    None,
    /// Things, where it does not.
    Count,
}

/// Why metron cannot be told anything. The text is the one of the existing system.
#[derive(Debug, Error)]
#[error("initializing dropsonde")]
pub struct DropsondeError(#[source] Unusable);

#[derive(Debug, Error)]
enum Unusable {
    #[error("the address of metron is empty")]
    NoAddress,
    #[error("looking up the address of metron, {address:?}")]
    Lookup {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("the address of metron, {0:?}, is nobody's")]
    Nobody(String),
    #[error("opening a socket to send from")]
    Socket(#[source] io::Error),
}

/// Where the datagrams go, and from whom.
#[derive(Debug)]
pub(super) struct Metron {
    origin: Origin,
    socket: UdpSocket,
    address: SocketAddr,
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It left; whether it arrives nobody knows.
    Sent,
    /// There was no room for it, or no way.
    Dropped,
}

impl Origin {
    fn as_str(self) -> &'static str {
        match self {
            Self::PolicyServer => "policy-server",
            Self::PolicyServerInternal => "policy-server-internal",
            Self::AsgSyncer => "policy-server-asg-syncer",
        }
    }
}

impl Unit {
    fn as_str(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Milliseconds => "ms",
            Self::None => "",
            Self::Count => "count",
        }
    }
}

impl Metron {
    /// The metron agent at `address`, a host and a port.
    pub(super) async fn at(origin: Origin, address: &str) -> Result<Self, DropsondeError> {
        let address = resolve(address).await.map_err(DropsondeError)?;
        let socket =
            socket_to(address).map_err(|source| DropsondeError(Unusable::Socket(source)))?;
        Ok(Self { origin, socket, address })
    }

    /// Tells how much there is of something.
    pub(super) fn value(&self, name: String, value: f64, unit: Unit) -> Fate {
        self.send(&value_envelope(self.origin, now(), name, value, unit))
    }

    /// Tells that something happened once.
    pub(super) fn count(&self, name: String) -> Fate {
        self.send(&count_envelope(self.origin, now(), name))
    }

    fn send(&self, envelope: &Envelope) -> Fate {
        let datagram = envelope.encode_to_vec();
        if datagram.len() > LONGEST {
            return Fate::Dropped;
        }
        match self.socket.send_to(&datagram, self.address) {
            Ok(_) => Fate::Sent,
            Err(_) => Fate::Dropped,
        }
    }
}

async fn resolve(address: &str) -> Result<SocketAddr, Unusable> {
    if address.is_empty() {
        return Err(Unusable::NoAddress);
    }
    let found = lookup_host(address).await;
    let mut found =
        found.map_err(|source| Unusable::Lookup { address: address.to_owned(), source })?;
    found.next().ok_or_else(|| Unusable::Nobody(address.to_owned()))
}

/// Not connected: a connected socket would report that metron was away to whoever sends next.
fn socket_to(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn value_envelope(origin: Origin, at: Duration, name: String, value: f64, unit: Unit) -> Envelope {
    Envelope {
        value_metric: Some(ValueMetric { name, value, unit: unit.as_str().to_owned() }),
        ..envelope(origin, at, EventType::ValueMetric)
    }
}

fn count_envelope(origin: Origin, at: Duration, name: String) -> Envelope {
    Envelope {
        counter_event: Some(CounterEvent { name, delta: 1 }),
        ..envelope(origin, at, EventType::CounterEvent)
    }
}

fn envelope(origin: Origin, at: Duration, event_type: EventType) -> Envelope {
    Envelope {
        origin: origin.as_str().to_owned(),
        event_type: event_type.into(),
        timestamp: i64::try_from(at.as_nanos()).ok(),
        value_metric: None,
        counter_event: None,
    }
}

/// Since 1970; a clock before that is taken for 1970.
fn now() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
}

#[cfg(test)]
mod tests;
