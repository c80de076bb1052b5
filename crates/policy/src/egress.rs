use std::{fmt, net::Ipv4Addr, str::FromStr};

use ipnet::{AddrParseError, Ipv4Net};
use thiserror::Error;

use crate::{PortRange, Protocol};

/// One permission to send out of the overlay: some kind of traffic, to some addresses. What a rule of a
/// security group means, and what Garden's rules for sending mean (spec/cell.md §B.5, §A.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressRule {
    /// Where to; nowhere, if there are none.
    pub networks: Vec<Ipv4Range>,
    /// What.
    pub traffic: Traffic,
    /// Whether what passes is to be logged.
    pub log: bool,
}

/// A kind of traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Traffic {
    /// Everything, of whatever protocol.
    All,
    /// To these ports, of which there is one at least.
    Ports(Protocol, Vec<PortRange>),
    /// ICMP messages.
    Icmp {
        /// The type; `None` for any, and then any code.
        kind: Option<u8>,
        /// The code; `None` for any.
        code: Option<u8>,
    },
}

/// An inclusive range of addresses, `start ≤ end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv4Range {
    start: Ipv4Addr,
    end: Ipv4Addr,
}

/// Why two addresses, or a text, are no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidIpv4Range {
    /// The range runs backwards.
    #[error("the network {start} to {end} runs backwards")]
    Backwards {
        /// First address as given.
        start: Ipv4Addr,
        /// Last address as given.
        end: Ipv4Addr,
    },
    /// An address of the other family.
    #[error("IPv6 is not supported, and {0:?} is IPv6")]
    V6(String),
    /// Part of the text is no address.
    #[error(
        "{0:?} is not an address, a network such as 10.0.0.0/8, or a range such as 10.0.0.1-10.0.0.9"
    )]
    Unreadable(String),
}

impl EgressRule {
    /// Whether this lets a TCP or UDP connection to `port` of `address` be opened.
    pub fn allows(&self, protocol: Protocol, address: Ipv4Addr, port: u16) -> bool {
        let meant = match &self.traffic {
            Traffic::All => true,
            Traffic::Ports(of, ranges) => {
                *of == protocol && ranges.iter().any(|range| range.contains(port))
            }
            Traffic::Icmp { .. } => false,
        };
        meant && self.networks.iter().any(|range| range.contains(address))
    }
}

impl Ipv4Range {
    /// The range `start..=end`.
    pub fn new(start: Ipv4Addr, end: Ipv4Addr) -> Result<Self, InvalidIpv4Range> {
        if start > end {
            return Err(InvalidIpv4Range::Backwards { start, end });
        }
        Ok(Self { start, end })
    }

    /// First address.
    pub fn start(self) -> Ipv4Addr {
        self.start
    }

    /// Last address, included.
    pub fn end(self) -> Ipv4Addr {
        self.end
    }

    /// Whether `address` lies inside.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.start..=self.end).contains(&address)
    }
}

impl From<Ipv4Addr> for Ipv4Range {
    fn from(address: Ipv4Addr) -> Self {
        Self { start: address, end: address }
    }
}

impl From<Ipv4Net> for Ipv4Range {
    fn from(net: Ipv4Net) -> Self {
        Self { start: net.network(), end: net.broadcast() }
    }
}

/// `10.0.0.1`, or `10.0.0.1-10.0.0.9`.
impl fmt::Display for Ipv4Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.start == self.end {
            write!(f, "{}", self.start)
        } else {
            write!(f, "{}-{}", self.start, self.end)
        }
    }
}

/// An address, a network in CIDR notation, or two addresses with a dash between them.
impl FromStr for Ipv4Range {
    type Err = InvalidIpv4Range;

    fn from_str(text: &str) -> Result<Self, InvalidIpv4Range> {
        let unreadable = || {
            let text = text.to_owned();
            if text.contains(':') {
                InvalidIpv4Range::V6(text)
            } else {
                InvalidIpv4Range::Unreadable(text)
            }
        };
        if text.contains('/') {
            let net: Result<Ipv4Net, AddrParseError> = text.parse();
            return net.map(Self::from).map_err(|_| unreadable());
        }
        let (start, end) = text.split_once('-').unwrap_or((text, text));
        let address = |text: &str| text.parse::<Ipv4Addr>().map_err(|_| unreadable());
        Self::new(address(start)?, address(end)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> Result<String, String> {
        text.parse::<Ipv4Range>().map(|range| range.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_networks_and_ranges_are_ranges() {
        assert_eq!(range("10.0.0.1").unwrap(), "10.0.0.1");
        assert_eq!(range("10.0.0.5/30").unwrap(), "10.0.0.4-10.0.0.7");
        assert_eq!(range("0.0.0.0/0").unwrap(), "0.0.0.0-255.255.255.255");
        assert_eq!(range("10.0.0.1-10.0.0.9").unwrap(), "10.0.0.1-10.0.0.9");
        assert_eq!(
            range("10.0.0.9-10.0.0.1").unwrap_err(),
            "the network 10.0.0.9 to 10.0.0.1 runs backwards"
        );
        assert_eq!(
            range("fd00::/8").unwrap_err(),
            "IPv6 is not supported, and \"fd00::/8\" is IPv6"
        );
        for bad in ["", "10.0.0", "10.0.0.1/33", " 10.0.0.1", "10.0.0.1-", "a-b"] {
            assert!(range(bad).unwrap_err().contains("is not an address"), "{bad:?}");
        }
    }

    #[test]
    fn a_rule_allows_what_it_says_and_nothing_beside_it() {
        let rule = EgressRule {
            networks: vec!["10.0.0.0/30".parse().unwrap(), "10.1.0.1".parse().unwrap()],
            traffic: Traffic::Ports(
                Protocol::Tcp,
                vec!["80".parse().unwrap(), "90-91".parse().unwrap()],
            ),
            log: false,
        };
        let allows =
            |protocol, address: &str, port| rule.allows(protocol, address.parse().unwrap(), port);
        assert!(allows(Protocol::Tcp, "10.0.0.3", 80));
        assert!(allows(Protocol::Tcp, "10.1.0.1", 91));
        assert!(!allows(Protocol::Tcp, "10.0.0.4", 80));
        assert!(!allows(Protocol::Tcp, "10.0.0.3", 81));
        assert!(!allows(Protocol::Udp, "10.0.0.3", 80));
        let all = EgressRule { traffic: Traffic::All, ..rule.clone() };
        assert!(all.allows(Protocol::Udp, Ipv4Addr::new(10, 0, 0, 3), 9));
        let icmp = EgressRule { traffic: Traffic::Icmp { kind: None, code: None }, ..rule };
        assert!(!icmp.allows(Protocol::Tcp, Ipv4Addr::new(10, 0, 0, 3), 80));
    }

    proptest! {
        #[test]
        fn what_a_range_prints_it_can_parse(a: Ipv4Addr, b: Ipv4Addr) {
            let range = Ipv4Range::new(a.min(b), a.max(b)).unwrap();
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }

        #[test]
        fn any_text_is_a_range_or_refused(text in "[0-9./:-]{0,24}|.*") {
            if let Ok(range) = text.parse::<Ipv4Range>() {
                prop_assert!(range.start() <= range.end());
            }
        }
    }
}
