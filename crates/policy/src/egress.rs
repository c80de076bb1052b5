//! What containers may send to the world outside the overlay: the rules of security groups, and of
//! whoever else speaks of such traffic.
//!
//! Security groups arrive as the text of a JSON array (spec/cell.md §B.5, §D.6). An address that cannot
//! be read refuses the whole text, as callers then keep what was enforced before; a rule that says
//! nothing a firewall could do is left out, with the reason, as cells have always done.

use std::{
    collections::BTreeSet,
    fmt,
    net::{AddrParseError, IpAddr},
    str::FromStr,
};

use gocompat::json::{self, JsonError};
use ipnet::IpNet;
use serde::Deserialize;
use thiserror::Error;

use crate::{PortRange, Protocol};

/// One permission to send: some kind of traffic, to some addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EgressRule {
    /// Where to; nowhere, if there are none.
    pub destinations: Vec<IpRange>,
    /// What.
    pub traffic: Traffic,
    /// Whether what passes is told of.
    pub log: bool,
}

/// A kind of traffic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Traffic {
    /// Every protocol.
    All,
    /// To these ports; never none.
    Ports(Protocol, Vec<PortRange>),
    /// ICMP messages of a type and code; `None` means any. Of IPv4.
    Icmp(Option<u8>, Option<u8>),
    /// The same of IPv6.
    IcmpV6(Option<u8>, Option<u8>),
}

/// An inclusive range of addresses of one family, first to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpRange {
    start: IpAddr,
    end: IpAddr,
}

/// Why a text, or a pair of addresses, is no range.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidIpRange {
    /// The first is behind the last, or of another family.
    #[error("{start} to {end} is not a range of addresses")]
    Backwards {
        /// First address as given.
        start: IpAddr,
        /// Last address as given.
        end: IpAddr,
    },
    /// The text is no address, network or range.
    #[error(
        "{text:?} is not an address, a network such as 10.0.0.0/8 or a range such as 10.0.0.1-10.0.0.9"
    )]
    Unreadable {
        /// As given.
        text: String,
        /// Why the first address in it is none; absent where a network is meant.
        #[source]
        source: Option<AddrParseError>,
    },
}

/// What the rules of a security group say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EgressRules {
    /// What can be enforced, each once, in the order given.
    pub rules: Vec<EgressRule>,
    /// What cannot.
    pub skipped: Vec<SkippedRule>,
}

/// A rule that says nothing a firewall could do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedRule {
    /// Which of the rules, from 1.
    pub number: usize,
    /// Why.
    pub reason: SkipReason,
}

/// Why a rule says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the text says it")]
pub enum SkipReason {
    #[error("protocol {0:?} is unknown, expected tcp, udp, icmp, icmpv6 or all")]
    Protocol(String),
    #[error("tcp and udp need ports, and {0:?} are none")]
    NoPorts(String),
    #[error("only tcp and udp have ports")]
    Ports,
    #[error("an ICMP type or code is -1 to 255, not {0}")]
    Icmp(i64),
}

/// Why the rules of a security group are refused as a whole.
#[derive(Debug, Error)]
pub enum UnreadableEgress {
    /// The text is not a JSON array of rules.
    #[error("the rules are not a JSON array of rules")]
    Json(#[source] JsonError),
    /// An address cannot be read.
    #[error("destination of rule {number}")]
    Destination {
        /// Which of the rules, from 1.
        number: usize,
        /// Why not.
        #[source]
        source: InvalidIpRange,
    },
}

/// A rule as it is sent.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename = "SecurityGroupRule")]
struct WireRule {
    protocol: String,
    destination: String,
    ports: String,
    #[serde(rename = "type")]
    kind: i64,
    code: i64,
    log: bool,
}

impl Traffic {
    /// Whether a TCP or UDP connection to `port` is of this kind.
    pub fn opens(&self, protocol: Protocol, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Ports(of, ranges) => {
                *of == protocol && ranges.iter().any(|range| range.contains(port))
            }
            Self::Icmp(..) | Self::IcmpV6(..) => false,
        }
    }
}

impl EgressRules {
    /// Reads the text of a security group's rules.
    pub fn read(text: &str) -> Result<Self, UnreadableEgress> {
        let wire: Vec<WireRule> =
            json::from_slice(text.as_bytes()).map_err(UnreadableEgress::Json)?;
        let (mut read, mut known) = (Self::default(), BTreeSet::new());
        for (index, rule) in wire.into_iter().enumerate() {
            let number = index + 1;
            let WireRule { protocol, destination, ports, kind, code, log } = rule;
            let destinations = destination.split(',').map(str::parse).collect::<Result<_, _>>();
            let destinations =
                destinations.map_err(|source| UnreadableEgress::Destination { number, source })?;
            match read_traffic(&protocol, &ports, kind, code) {
                Ok(traffic) => {
                    let rule = EgressRule { destinations, traffic, log };
                    if known.insert(rule.clone()) {
                        read.rules.push(rule);
                    }
                }
                Err(reason) => read.skipped.push(SkippedRule { number, reason }),
            }
        }
        Ok(read)
    }
}

fn read_traffic(protocol: &str, ports: &str, kind: i64, code: i64) -> Result<Traffic, SkipReason> {
    let without_ports = |traffic| {
        if ports.is_empty() { Ok(traffic) } else { Err(SkipReason::Ports) }
    };
    match protocol {
        "tcp" => Ok(Traffic::Ports(Protocol::Tcp, read_ports(ports)?)),
        "udp" => Ok(Traffic::Ports(Protocol::Udp, read_ports(ports)?)),
        "icmp" => without_ports(Traffic::Icmp(read_icmp(kind)?, read_icmp(code)?)),
        "icmpv6" => without_ports(Traffic::IcmpV6(read_icmp(kind)?, read_icmp(code)?)),
        "all" => without_ports(Traffic::All),
        other => Err(SkipReason::Protocol(other.to_owned())),
    }
}

/// Pieces that are no ports are passed over: what is left allows less, never more.
fn read_ports(text: &str) -> Result<Vec<PortRange>, SkipReason> {
    let piece = |piece: &str| {
        let (start, end) = piece.split_once('-').unwrap_or((piece, piece));
        PortRange::new(start.trim().parse().ok()?, end.trim().parse().ok()?).ok()
    };
    let ports: Vec<_> = text.split(',').filter_map(piece).collect();
    if ports.is_empty() { Err(SkipReason::NoPorts(text.to_owned())) } else { Ok(ports) }
}

/// −1, or 255 as some say it, means any.
fn read_icmp(number: i64) -> Result<Option<u8>, SkipReason> {
    match u8::try_from(number) {
        Ok(255) => Ok(None),
        Ok(number) => Ok(Some(number)),
        Err(_) if number == -1 => Ok(None),
        Err(_) => Err(SkipReason::Icmp(number)),
    }
}

impl IpRange {
    /// The range from `start` to `end`, both included.
    pub fn new(start: IpAddr, end: IpAddr) -> Result<Self, InvalidIpRange> {
        if start.is_ipv4() == end.is_ipv4() && start <= end {
            Ok(Self { start, end })
        } else {
            Err(InvalidIpRange::Backwards { start, end })
        }
    }

    /// First address.
    pub fn start(self) -> IpAddr {
        self.start
    }

    /// Last address, included.
    pub fn end(self) -> IpAddr {
        self.end
    }

    /// Whether `address` lies inside.
    pub fn contains(self, address: IpAddr) -> bool {
        // The families are ordered one after the other, so none lies inside a range of the other.
        (self.start..=self.end).contains(&address)
    }
}

impl From<IpNet> for IpRange {
    fn from(net: IpNet) -> Self {
        Self { start: net.network(), end: net.broadcast() }
    }
}

/// An address, a network or a range, without blanks.
impl FromStr for IpRange {
    type Err = InvalidIpRange;

    fn from_str(text: &str) -> Result<Self, InvalidIpRange> {
        let unreadable = |source| InvalidIpRange::Unreadable { text: text.to_owned(), source };
        if text.contains('/') {
            return text.parse::<IpNet>().map(Self::from).map_err(|_| unreadable(None));
        }
        let (start, end) = text.split_once('-').unwrap_or((text, text));
        let address = |text: &str| text.parse().map_err(|source| unreadable(Some(source)));
        Self::new(address(start)?, address(end)?)
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.start == self.end {
            return write!(f, "{}", self.start);
        }
        write!(f, "{}-{}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(fields: &str) -> Result<EgressRule, SkipReason> {
        let text = format!(r#"[{{"destination":"10.0.0.1",{fields}}}]"#);
        let mut read = EgressRules::read(&text).unwrap();
        read.rules.pop().ok_or_else(|| read.skipped.remove(0).reason)
    }

    fn ports(texts: &[&str]) -> Vec<PortRange> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn every_kind_of_traffic_is_read() {
        let traffic = |fields| one(fields).map(|rule| rule.traffic);
        assert_eq!(
            traffic(r#""protocol":"tcp","ports":"80, 443,8000 - 8010""#),
            Ok(Traffic::Ports(Protocol::Tcp, ports(&["80", "443", "8000-8010"])))
        );
        assert_eq!(
            traffic(r#""protocol":"udp","ports":"53""#),
            Ok(Traffic::Ports(Protocol::Udp, ports(&["53"])))
        );
        assert_eq!(
            traffic(r#""protocol":"icmp","type":8,"code":0"#),
            Ok(Traffic::Icmp(Some(8), Some(0)))
        );
        assert_eq!(
            traffic(r#""protocol":"icmp","type":-1,"code":255"#),
            Ok(Traffic::Icmp(None, None))
        );
        assert_eq!(
            traffic(r#""protocol":"icmpv6","type":128,"code":-1"#),
            Ok(Traffic::IcmpV6(Some(128), None))
        );
        assert_eq!(traffic(r#""protocol":"all""#), Ok(Traffic::All));
        assert!(one(r#""protocol":"all","log":true"#).unwrap().log);
    }

    #[test]
    fn what_says_nothing_is_left_out_and_never_widened() {
        let reason = |fields| one(fields).unwrap_err();
        assert_eq!(reason(r#""protocol":"tcp""#), SkipReason::NoPorts(String::new()));
        assert_eq!(reason(r#""protocol":"udp","ports":"x,0""#), SkipReason::NoPorts("x,0".into()));
        assert_eq!(reason(r#""protocol":"all","ports":"80""#), SkipReason::Ports);
        assert_eq!(reason(r#""protocol":"icmp","type":300"#), SkipReason::Icmp(300));
        assert_eq!(reason(r#""protocol":"gre""#), SkipReason::Protocol("gre".into()));
        let some = one(r#""protocol":"tcp","ports":"80,x,90-80""#).unwrap();
        assert_eq!(some.traffic, Traffic::Ports(Protocol::Tcp, ports(&["80"])));
    }

    #[test]
    fn destinations_are_addresses_networks_and_ranges() {
        let text = r#"[{"protocol":"all","destination":"10.0.0.1,10.1.0.0/16,10.2.0.1-10.2.0.9,2001:db8::/32"}]"#;
        let rule = EgressRules::read(text).unwrap().rules.remove(0);
        let said: Vec<_> = rule.destinations.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "10.0.0.1",
                "10.1.0.0-10.1.255.255",
                "10.2.0.1-10.2.0.9",
                "2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"
            ]
        );
    }

    #[test]
    fn one_address_that_cannot_be_read_refuses_all() {
        for destination in ["", "10.0.0.1, 10.0.0.2", "10.0.0.9-10.0.0.1", "10.0.0.0/33", "web"] {
            let text = format!(
                r#"[{{"protocol":"all","destination":"10.0.0.1"}},
                    {{"protocol":"all","destination":"{destination}"}}]"#
            );
            let error = EgressRules::read(&text).unwrap_err();
            assert_eq!(error.to_string(), "destination of rule 2", "{destination:?}");
        }
        assert!(EgressRules::read("{").is_err());
        assert_eq!(EgressRules::read("[]").unwrap(), EgressRules::default());
    }

    #[test]
    fn what_is_said_twice_is_kept_once() {
        let rule = r#"{"protocol":"all","destination":"10.0.0.1"}"#;
        let read = EgressRules::read(&format!("[{rule},{rule}]")).unwrap();
        assert_eq!(read.rules.len(), 1);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(\\[\\{\"destination\":\"|[0-9a-f.,/:-]|\"\\}\\]|.)*") {
            let _ = EgressRules::read(&text);
        }

        #[test]
        fn what_a_range_prints_it_can_parse(a: u32, b: u32) {
            let address = |bits: u32| IpAddr::V4(bits.into());
            let range = IpRange::new(address(a.min(b)), address(a.max(b))).unwrap();
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }

        #[test]
        fn so_it_can_where_it_is_of_ipv6(a: u128, b: u128) {
            let address = |bits: u128| IpAddr::V6(bits.into());
            let range = IpRange::new(address(a.min(b)), address(a.max(b))).unwrap();
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }
    }
}
