//! What Garden's rules for sending mean (spec/cell.md §A.4, and the 2024 table of §B.5). The Go
//! networkers skip a rule they cannot express and go on; here it is an error that names the rule,
//! because an app that silently lacks a rule is a riddle.

use std::net::{AddrParseError, IpAddr};

use policy::{EgressRule, InvalidIpRange, InvalidPortRange, IpRange, PortRange, Protocol, Traffic};
use thiserror::Error;

use crate::wire;

/// Why a list of rules is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("rule {number} to send ({text})")]
pub(crate) struct InvalidEgress {
    /// Which rule of the list, from 1.
    number: usize,
    /// The rule as it was sent.
    text: String,
    #[source]
    source: Fault,
}

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Fault {
    #[error("protocol {0} is unknown, expected 0 (all), 1 (tcp), 2 (udp), 3 (icmp) or 4 (icmpv6)")]
    Protocol(u8),
    #[error("IPv6 needs dual_stack")]
    V6,
    #[error("icmp is of IPv4 and icmpv6 of IPv6, and {0} is not")]
    Family(IpRange),
    #[error("{text:?} is not an address")]
    Address {
        text: String,
        #[source]
        source: AddrParseError,
    },
    #[error(transparent)]
    Range(#[from] InvalidIpRange),
    #[error("tcp and udp need ports")]
    NoPorts,
    #[error("only tcp and udp have ports")]
    Ports,
    #[error("icmp needs a type and a code")]
    NoIcmp,
    #[error(transparent)]
    PortRange(#[from] InvalidPortRange),
}

/// Which versions of IP rules may speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Families {
    /// IPv4.
    One,
    /// IPv6 as well.
    Both,
}

/// Reads a list of rules; the first that cannot be expressed refuses them all.
pub(crate) fn read(
    rules: &[wire::NetOutRule],
    families: Families,
) -> Result<Vec<EgressRule>, InvalidEgress> {
    let numbered = rules.iter().enumerate();
    numbered
        .map(|(index, rule)| {
            read_rule(rule, families).map_err(|source| InvalidEgress {
                number: index + 1,
                text: gocompat::json::to_string(rule),
                source,
            })
        })
        .collect()
}

fn read_rule(rule: &wire::NetOutRule, families: Families) -> Result<EgressRule, Fault> {
    let wire::NetOutRule { protocol, networks, ports, icmps, log } = rule;
    let traffic = match (protocol, icmps) {
        (0, _) if ports.is_empty() => Traffic::All,
        (1 | 2, _) if ports.is_empty() => return Err(Fault::NoPorts),
        (1, _) => Traffic::Ports(Protocol::Tcp, read_ports(ports)?),
        (2, _) => Traffic::Ports(Protocol::Udp, read_ports(ports)?),
        (4, _) if families == Families::One => return Err(Fault::V6),
        (3 | 4, Some(wire::IcmpControl { kind, code: Some(code) })) if ports.is_empty() => {
            let [kind, code] = [*kind, *code].map(read_icmp);
            if *protocol == 3 { Traffic::Icmp(kind, code) } else { Traffic::IcmpV6(kind, code) }
        }
        (0 | 3 | 4, _) if !ports.is_empty() => return Err(Fault::Ports),
        (3 | 4, _) => return Err(Fault::NoIcmp),
        (other, _) => return Err(Fault::Protocol(*other)),
    };
    let read = |network| read_network(network, families);
    let destinations = networks.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let astray = |range: &&IpRange| match traffic {
        Traffic::Icmp(..) => range.start().is_ipv6(),
        Traffic::IcmpV6(..) => range.start().is_ipv4(),
        Traffic::All | Traffic::Ports(..) => false,
    };
    match destinations.iter().find(astray) {
        Some(range) => Err(Fault::Family(*range)),
        None => Ok(EgressRule { destinations, traffic, log: *log }),
    }
}

/// −1 means any, and has become 255 on its way here.
fn read_icmp(byte: u8) -> Option<u8> {
    (byte != 255).then_some(byte)
}

/// Port 0 stands for no port, so a range that starts there starts at 1.
fn read_ports(ranges: &[wire::PortRange]) -> Result<Vec<PortRange>, InvalidPortRange> {
    let read =
        |&wire::PortRange { start, end }: &wire::PortRange| PortRange::new(start.max(1), end);
    ranges.iter().map(read).collect()
}

/// A network without an end is one address.
fn read_network(range: &wire::IpRange, families: Families) -> Result<IpRange, Fault> {
    let wire::IpRange { start, end } = range;
    let start = read_address(start)?;
    let end = if end.is_empty() { start } else { read_address(end)? };
    if families == Families::One && (start.is_ipv6() || end.is_ipv6()) {
        return Err(Fault::V6);
    }
    Ok(IpRange::new(start, end)?)
}

/// Go writes an address of IPv4 in either family's notation.
fn read_address(text: &str) -> Result<IpAddr, Fault> {
    let address: Result<IpAddr, _> = text.parse();
    address
        .map(|address| address.to_canonical())
        .map_err(|source| Fault::Address { text: text.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use netfilter::egress::accept;
    use proptest::prelude::*;

    use super::*;

    fn rules(json: &str) -> Result<Vec<String>, String> {
        rules_of(json, Families::One)
    }

    fn rules_of(json: &str, families: Families) -> Result<Vec<String>, String> {
        let rule: wire::NetOutRule = gocompat::json::from_slice(json.as_bytes()).unwrap();
        match read(&[rule], families) {
            Ok(egress) => Ok(accept(&egress[0]).iter().map(ToString::to_string).collect()),
            Err(error) => Err(error.source.to_string()),
        }
    }

    #[test]
    fn ports_and_networks_are_multiplied() {
        assert_eq!(
            rules(
                r#"{"protocol":1,"networks":[{"start":"10.0.0.1","end":"10.0.0.9"},{"start":"8.8.8.8"}],
                    "ports":[{"start":80,"end":80},{"start":8000,"end":8010}]}"#
            )
            .unwrap(),
            [
                "-p tcp -m iprange --dst-range 10.0.0.1-10.0.0.9 -m tcp --dport 80 -j ACCEPT",
                "-p tcp -m iprange --dst-range 10.0.0.1-10.0.0.9 -m tcp --dport 8000:8010 -j ACCEPT",
                "-p tcp -m iprange --dst-range 8.8.8.8-8.8.8.8 -m tcp --dport 80 -j ACCEPT",
                "-p tcp -m iprange --dst-range 8.8.8.8-8.8.8.8 -m tcp --dport 8000:8010 -j ACCEPT",
            ]
        );
    }

    #[test]
    fn icmp_is_not_widened() {
        let icmp = |control: &str| {
            rules(&format!(
                r#"{{"protocol":3,"networks":[{{"start":"8.8.8.8"}}],"icmps":{control}}}"#
            ))
        };
        let expected = |kind: &str| {
            Ok(vec![format!(
                "-p icmp -m iprange --dst-range 8.8.8.8-8.8.8.8 -m icmp --icmp-type {kind} -j ACCEPT"
            )])
        };
        assert_eq!(icmp(r#"{"type":8,"code":0}"#), expected("8/0"));
        assert_eq!(icmp(r#"{"type":8,"code":255}"#), expected("8"));
        assert_eq!(icmp(r#"{"code":0}"#), expected("0/0"));
        assert_eq!(icmp(r#"{"type":255,"code":255}"#), expected("any"));
        assert_eq!(icmp(r#"{"type":8}"#), Err("icmp needs a type and a code".into()));
        assert_eq!(icmp("null"), Err("icmp needs a type and a code".into()));
    }

    #[test]
    fn all_protocols_have_no_ports_and_no_network_means_no_rule() {
        assert_eq!(
            rules(r#"{"networks":[{"start":"0.0.0.0","end":"255.255.255.255"}]}"#).unwrap(),
            ["-m iprange --dst-range 0.0.0.0-255.255.255.255 -j ACCEPT"]
        );
        assert_eq!(rules("{}").unwrap(), [""; 0]);
    }

    #[test]
    fn what_cannot_be_expressed_is_refused() {
        let fault = |json: &str| rules(json).unwrap_err();
        assert_eq!(fault(r#"{"protocol":1}"#), "tcp and udp need ports");
        assert_eq!(fault(r#"{"ports":[{"start":1,"end":2}]}"#), "only tcp and udp have ports");
        assert_eq!(fault(r#"{"protocol":4}"#), "IPv6 needs dual_stack");
        assert!(fault(r#"{"protocol":9}"#).starts_with("protocol 9 is unknown"));
        assert_eq!(fault(r#"{"networks":[{"start":"fd00::1"}]}"#), "IPv6 needs dual_stack");
        assert_eq!(fault(r#"{"networks":[{"start":"10.0.0"}]}"#), "\"10.0.0\" is not an address");
        assert_eq!(
            fault(r#"{"networks":[{"start":"10.0.0.2","end":"10.0.0.1"}]}"#),
            "10.0.0.2 to 10.0.0.1 is not a range of addresses"
        );
        assert_eq!(
            fault(r#"{"protocol":2,"ports":[{"start":9,"end":1}]}"#),
            "port range 9-1 runs backwards"
        );
    }

    #[test]
    fn ipv6_is_expressed_where_containers_have_it() {
        let both = |json: &str| rules_of(json, Families::Both);
        assert_eq!(
            both(
                r#"{"protocol":2,"networks":[{"start":"2001:db8::1","end":"2001:db8::ff"},{"start":"::ffff:8.8.8.8"}],
                    "ports":[{"start":53,"end":53}]}"#
            )
            .unwrap(),
            [
                "-p udp -m iprange --dst-range 2001:db8::1-2001:db8::ff -m udp --dport 53 -j ACCEPT",
                "-p udp -m iprange --dst-range 8.8.8.8-8.8.8.8 -m udp --dport 53 -j ACCEPT",
            ]
        );
        let icmp = |protocol, start, icmps: &str| {
            both(&format!(
                r#"{{"protocol":{protocol},"networks":[{{"start":"{start}"}}],"icmps":{icmps}}}"#
            ))
        };
        assert_eq!(
            icmp(4, "2001:db8::1", r#"{"type":128,"code":0}"#).unwrap(),
            [
                "-p ipv6-icmp -m iprange --dst-range 2001:db8::1-2001:db8::1 -m icmp6 --icmpv6-type 128/0 -j ACCEPT"
            ]
        );
        assert_eq!(icmp(4, "2001:db8::1", "null"), Err("icmp needs a type and a code".into()));
        for (protocol, start) in [(3, "2001:db8::1"), (4, "8.8.8.8")] {
            let fault = icmp(protocol, start, r#"{"type":8,"code":0}"#).unwrap_err();
            assert_eq!(fault, format!("icmp is of IPv4 and icmpv6 of IPv6, and {start} is not"));
        }
        let mixed = both(r#"{"networks":[{"start":"10.0.0.1","end":"2001:db8::1"}]}"#).unwrap_err();
        assert_eq!(mixed, "10.0.0.1 to 2001:db8::1 is not a range of addresses");
    }

    #[test]
    fn a_refusal_names_the_rule() {
        let good = wire::NetOutRule::default();
        let bad = wire::NetOutRule { protocol: 1, ..good.clone() };
        assert_eq!(
            read(&[good, bad], Families::Both).unwrap_err().to_string(),
            r#"rule 2 to send ({"protocol":1})"#
        );
    }

    proptest! {
        #[test]
        fn any_rule_is_expressed_or_refused(
            protocol: u8,
            start in ".{0,12}|[0-9]{1,3}(\\.[0-9]{1,3}){3}|fd[0-9a-f]{2}(:[0-9a-f]{0,2}){2,7}",
            first: u16, last: u16, kind: u8, code: Option<u8>, both: bool,
        ) {
            let families = if both { Families::Both } else { Families::One };
            let rule = wire::NetOutRule {
                protocol: protocol % 6,
                networks: vec![wire::IpRange { start, end: String::new() }],
                ports: vec![wire::PortRange { start: first, end: last }],
                icmps: Some(wire::IcmpControl { kind, code }),
                log: false,
            };
            if let Ok(egress) = read(&[rule], families) {
                prop_assert_eq!(accept(&egress[0]).len(), 1);
                prop_assert!(both || egress[0].destinations[0].start().is_ipv4());
            }
        }
    }
}
