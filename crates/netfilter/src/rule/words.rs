//! What rules are made of: actions, states, marks, names.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use policy::Protocol;
use thiserror::Error;

use crate::ChainName;

/// What happens to a packet that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Let it pass; no later rule of the table is asked.
    Accept,
    /// Lose it silently.
    Drop,
    /// Refuse it, telling the sender.
    Reject(RejectWith),
    /// Go through another chain of ours, then come back.
    Jump(ChainName),
    /// Set the packet's mark.
    SetMark(u32),
    /// Remember the packet's mark as the connection's.
    SaveMark,
    /// Send it to another address and port.
    Dnat(Ipv4Addr, u16),
    /// Let it leave under the address of the interface.
    Masquerade,
}

/// How a sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectWith {
    /// ICMP port unreachable: a connection attempt ends with "refused".
    PortUnreachable,
    /// TCP reset: also ends a connection that was open. Only for rules that match TCP.
    TcpReset,
}

/// The protocol inside IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// 6.
    Tcp,
    /// 17.
    Udp,
    /// 1.
    Icmp,
}

/// Which states of a connection match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// Packets of, or about, a connection that was let in before.
    RelatedOrEstablished,
    /// Packets that belong to no connection.
    Invalid,
}

/// An inclusive range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    /// First address.
    pub start: Ipv4Addr,
    /// Last address, included.
    pub end: Ipv4Addr,
}

/// A kind of ICMP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Icmp {
    /// The type; 255 with code 255 means any.
    pub kind: u8,
    /// The code; `None` means any code of the type.
    pub code: Option<u8>,
}

/// A packet mark under a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The bits the mark must have.
    pub value: u32,
    /// The bits that are looked at.
    pub mask: u32,
}

/// The name of a network interface: 1 to 15 printable characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Interface(String);

/// The text cannot name an interface.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} cannot name an interface: 1 to 15 printable characters, no slash, quote or plus")]
pub struct InvalidInterface(pub String);

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("ACCEPT"),
            Self::Drop => f.write_str("DROP"),
            Self::Reject(RejectWith::PortUnreachable) => {
                f.write_str("REJECT --reject-with icmp-port-unreachable")
            }
            Self::Reject(RejectWith::TcpReset) => f.write_str("REJECT --reject-with tcp-reset"),
            Self::Jump(chain) => write!(f, "{chain}"),
            Self::SetMark(mark) => write!(f, "MARK --set-xmark {mark:#x}/0xffffffff"),
            Self::SaveMark => {
                f.write_str("CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff")
            }
            Self::Dnat(address, port) => write!(f, "DNAT --to-destination {address}:{port}"),
            Self::Masquerade => f.write_str("MASQUERADE"),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        })
    }
}

impl From<Protocol> for Transport {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RelatedOrEstablished => "RELATED,ESTABLISHED",
            Self::Invalid => "INVALID",
        })
    }
}

impl fmt::Display for Icmp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.code) {
            (255, Some(255) | None) => f.write_str("any"),
            (kind, None) => write!(f, "{kind}"),
            (kind, Some(code)) => write!(f, "{kind}/{code}"),
        }
    }
}

impl Mark {
    /// All 32 bits must be `value`.
    pub fn exactly(value: u32) -> Self {
        Self { value, mask: u32::MAX }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.value)?;
        if self.mask == u32::MAX { Ok(()) } else { write!(f, "/{:#x}", self.mask) }
    }
}

impl Interface {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Interface {
    type Err = InvalidInterface;

    fn from_str(text: &str) -> Result<Self, InvalidInterface> {
        // A trailing `+` is iptables' wildcard, which we never mean.
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"\"'\\/+!".contains(&byte);
        let fits = (1..=15).contains(&text.len()) && !text.starts_with('-');
        if fits && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidInterface(text.to_owned()))
        }
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
