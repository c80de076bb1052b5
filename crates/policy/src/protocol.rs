use std::{fmt, str::FromStr};

use thiserror::Error;

/// What a policy may allow. Container-to-container policies know these two and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Transmission Control Protocol, IP protocol 6.
    Tcp,
    /// User Datagram Protocol, IP protocol 17.
    Udp,
}

/// The text names no protocol a policy may have; matching is case-sensitive.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown protocol {0:?}, expected \"tcp\" or \"udp\"")]
pub struct UnknownProtocol(pub String);

impl Protocol {
    /// The lower-case name used on the wire, in the database and in firewall rules.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            other => Err(UnknownProtocol(other.to_owned())),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
