//! What runs inside the containers: a server that says who it is and whom it sees, and clients that
//! say precisely how an attempt ended. The `probe` binary is its command line.
//!
//! The protocol is a line for a line: whatever the client sends, the server answers
//! `{"server":"backend","peer":"10.255.30.2"}`. A server told to push says it over and over, unasked.

mod dial;
mod hear;
mod hold;
mod ping;
mod segment;
mod serve;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

pub use dial::dial;
pub use hear::hear;
pub use hold::{Cut, Held, hold};
pub use ping::ping;
pub use segment::{ACK, RST, SYN, send_segment};
pub use serve::{Listen, serve};

/// What a server answers to a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The server's name.
    pub server: String,
    /// The address the server sees us under.
    pub peer: IpAddr,
}

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "they are the protocols")]
pub enum Transport {
    Tcp,
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// How an attempt to reach a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The server answered.
    Open,
    /// ECONNREFUSED: nobody listens, or a REJECT with icmp-port-unreachable.
    Refused,
    /// Some other ICMP error: no route, administratively prohibited.
    Unreachable,
    /// Nothing came back: a DROP, or a lost route.
    Timeout,
    /// The connection stood, and was torn down before an answer came.
    Reset,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
        })
    }
}

/// The report of one attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dialled {
    /// How it ended.
    pub outcome: Outcome,
    /// How long that took, in milliseconds.
    pub ms: f64,
    /// The answering server's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The address the server saw us under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_sees: Option<IpAddr>,
}

impl fmt::Display for Dialled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {:.1} ms", self.outcome, self.ms)
    }
}

/// Any address of our own of the family of `address`.
fn any_like(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
