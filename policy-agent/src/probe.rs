//! `policy-agent explain --from NAMESPACE`: tries what the explanation says, with one connection, or
//! one empty datagram, out of the container's network namespace.
//!
//! A firewall that refuses looks like a port nobody listens at. What tells them apart is the agent: our
//! rules tell it of each packet they deny, from which port to which.

use std::{
    fmt, io,
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use hostnet::netns::{Netns, NetnsError};
use netfilter_events::packet::{self, Header};
use policy::Protocol;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};
use thiserror::Error;

use crate::explain::Flow;

/// How long the other end may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why nothing was tried.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// An app may have many addresses, or run elsewhere.
    #[error("which address to try is not known; name the {0} by its address")]
    Address(&'static str),
    /// The container's namespace.
    #[error("entering the container at {}", path.display())]
    Namespace {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: NetnsError,
    },
    /// The socket itself, before anything was sent.
    #[error("preparing to send from {0}")]
    Socket(IpAddr, #[source] io::Error),
}

/// What was tried: from which port to which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// `tcp` or `udp`.
    pub protocol: Transport,
    /// The container and the port it was tried from.
    pub source: SocketAddr,
    /// Whom it was for.
    pub destination: SocketAddr,
}

/// The protocol, as it stands in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A connection.
    Tcp,
    /// An empty datagram.
    Udp,
}

/// How it ended, as the container saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Met {
    /// The connection stood, or something came back.
    Answer,
    /// Somebody said no: the other end, or a firewall on the way.
    Refusal,
    /// Nothing came back.
    Silence,
}

/// What was tried, how it ended, and what this cell's rules told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// From which port to which.
    pub attempt: Attempt,
    /// How it ended.
    pub met: Met,
    /// Why rules of this cell denied it, if they did.
    pub denied: Option<String>,
}

impl Transport {
    /// As it stands in queries.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl Attempt {
    /// The headers of its packets, as rules tell of them.
    pub(crate) fn header(&self) -> Header {
        let protocol = match self.protocol {
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
        };
        let (source, destination) = (self.source, self.destination);
        let transport = packet::Transport::Ports {
            protocol,
            source: source.port(),
            destination: destination.port(),
        };
        Header { source: source.ip(), destination: destination.ip(), transport }
    }
}

impl Probe {
    /// Whether it did not get there, as far as that can be told: of a datagram, silence says nothing.
    pub fn failed(&self) -> bool {
        match (self.met, self.attempt.protocol) {
            (Met::Answer, _) => false,
            (Met::Silence, Transport::Udp) => self.denied.is_some(),
            (Met::Refusal | Met::Silence, _) => true,
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attempt: Attempt { protocol, source, destination }, met, denied } = self;
        write!(f, "{source} to {destination}: ")?;
        match (denied, met, protocol) {
            (Some(reason), _, _) => write!(f, "denied by a rule of this cell ({reason})"),
            (None, Met::Answer, _) => f.write_str("answered"),
            (None, Met::Refusal, _) => f.write_str(
                "refused, but by no rule of the agent: nobody listens there, or what the networker wrote for a container refuses it, or the other cell does",
            ),
            (None, Met::Silence, Transport::Tcp) => f.write_str("no answer within two seconds"),
            (None, Met::Silence, Transport::Udp) => {
                f.write_str("no answer and no refusal, and more a datagram does not tell")
            }
        }
    }
}

/// Tries `flow` from `source` to `destination` in the namespace at `path`. Takes two seconds at most.
pub(crate) fn attempt(
    path: &Path,
    flow: &Flow,
    source: IpAddr,
    destination: IpAddr,
) -> Result<(Attempt, Met), ProbeError> {
    let namespace = |source| ProbeError::Namespace { path: path.to_owned(), source };
    let netns = Netns::open(path).map_err(namespace)?;
    let destination = SocketAddr::from((destination, flow.port.get()));
    let protocol = match flow.protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
    };
    let tried = netns.run(|| {
        let socket = bound(protocol, source)?;
        let source = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let met = match protocol {
            Transport::Tcp => met(socket.connect_timeout(&destination.into(), PATIENCE))?,
            Transport::Udp => met(exchange(&socket, destination))?,
        };
        Ok((Attempt { protocol, source, destination }, met))
    });
    tried.map_err(namespace)?.map_err(|error| ProbeError::Socket(source, error))
}

fn bound(protocol: Transport, source: IpAddr) -> io::Result<Socket> {
    let kind = match protocol {
        Transport::Tcp => Type::STREAM,
        Transport::Udp => Type::DGRAM,
    };
    let source = SocketAddr::from((source, 0));
    let socket = Socket::new(Domain::for_address(source), kind, None)?;
    socket.bind(&source.into())?;
    Ok(socket)
}

fn exchange(socket: &Socket, destination: SocketAddr) -> io::Result<()> {
    socket.connect(&destination.into())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(&[])?;
    socket.recv(&mut [MaybeUninit::uninit()]).map(drop)
}

/// What the error says of the way there; one that says nothing of it is given back.
fn met(result: io::Result<()>) -> io::Result<Met> {
    let Err(error) = result else { return Ok(Met::Answer) };
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::PermissionDenied => Ok(Met::Refusal),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Ok(Met::Silence),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_told_from_none_and_from_silence() {
        let here = IpAddr::from([127, 0, 0, 1]);
        let listener = std::net::TcpListener::bind((here, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = |port: u16| {
            let destination = SocketAddr::from((here, port));
            let socket = bound(Transport::Tcp, here).unwrap();
            met(socket.connect_timeout(&destination.into(), PATIENCE)).unwrap()
        };
        assert_eq!(seen(port), Met::Answer);
        drop(listener);
        assert_eq!(seen(port), Met::Refusal);
        let quiet = std::net::UdpSocket::bind((here, 0)).unwrap();
        let socket = bound(Transport::Udp, here).unwrap();
        assert_eq!(met(exchange(&socket, quiet.local_addr().unwrap())).unwrap(), Met::Silence);
        let gone = quiet.local_addr().unwrap();
        drop(quiet);
        let socket = bound(Transport::Udp, here).unwrap();
        assert_eq!(met(exchange(&socket, gone)).unwrap(), Met::Refusal);
    }
}
