//! What rules are made of: actions, states, marks, names.

use std::{fmt, net::IpAddr, num::NonZeroU32, str::FromStr};

use policy::Protocol;
use thiserror::Error;

use crate::{ChainName, Family, MapName, SetName};

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
    /// Go on in another chain of ours, and come back to where this chain was jumped to.
    Goto(ChainName),
    /// Come back to where this chain was jumped to.
    Return,
    /// Go through the chain a map holds for an address of the packet, then come back.
    Dispatch(MapName, Side),
    /// Set the packet's mark.
    SetMark(u32),
    /// Set the packet's mark to what a map holds for an address; an unknown address changes nothing.
    MarkFrom(MapName, Side),
    /// Clear all bits of the packet's mark but these.
    KeepMark(u32),
    /// Remember the packet's mark as the connection's.
    SaveMark,
    /// Tell about it, and go on.
    Log(Log),
    /// Count it, and go on.
    Count,
    /// Send it to another address and port.
    Dnat(IpAddr, u16),
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

/// Which of a packet's two addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Who sends it.
    Source,
    /// Who is to get it.
    Destination,
}

/// What is told of a packet, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The text in front.
    pub prefix: LogPrefix,
    /// The netlink group that listens (NFLOG); `None` for the kernel's own log.
    pub group: Option<u16>,
}

/// The text in front of what is told of a packet: at most 29 printable characters, as much as every
/// kernel takes. Characters that would need quoting become `_`, what exceeds that is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPrefix(String);

/// How often a rule may match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Packets per second, at length; at most 10,000.
    pub per_second: NonZeroU32,
    /// Packets at once.
    pub burst: NonZeroU32,
}

/// Too many packets to one address and port, as counted by a meter. A rule with it matches what is
/// above the rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooMany {
    /// Who counts. iptables knows a name of more than 15 bytes by a hash of it and of the limits.
    pub meter: SetName,
    /// What is not too many.
    pub limit: Limit,
}

/// The protocol inside IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// 6.
    Tcp,
    /// 17.
    Udp,
    /// 1, in IPv4 only.
    Icmp,
    /// 58, in IPv6 only.
    IcmpV6,
}

/// Which states of a connection match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// Packets of, or about, a connection that was let in before.
    RelatedOrEstablished,
    /// Packets that belong to no connection.
    Invalid,
    /// The first packet of a connection.
    New,
    /// Packets of no connection that was let in before.
    Unestablished,
}

/// An inclusive range of addresses, both of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    /// First address.
    pub start: IpAddr,
    /// Last address, included.
    pub end: IpAddr,
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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interface(String);

/// The text cannot name an interface.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} cannot name an interface: 1 to 15 printable characters, no slash, quote or plus")]
pub struct InvalidInterface(pub String);

impl fmt::Display for LogPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl LogPrefix {
    /// The prefix `text`, made fit.
    pub fn new(text: &str) -> Self {
        let plain = |c: char| {
            let fits = c == ' ' || c.is_ascii_graphic();
            if fits && !"\"'\\".contains(c) { c } else { '_' }
        };
        Self(text.chars().map(plain).take(29).collect())
    }
}

impl AddressRange {
    /// The family of both addresses.
    pub fn family(&self) -> Family {
        Family::of(self.start)
    }

    /// Whether `address` lies inside.
    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family() && (self.start..=self.end).contains(&address)
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "src",
            Self::Destination => "dst",
        })
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::IcmpV6 => "ipv6-icmp",
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
            Self::New => "NEW",
            Self::Unestablished => "INVALID,NEW,UNTRACKED",
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
