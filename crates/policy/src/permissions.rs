use std::{collections::BTreeMap, net::IpAddr};

use crate::{EgressRule, IpRange, PortRange, Protocol, Traffic};

/// What several rules allow together: each kind of traffic once, with the addresses it may go to in
/// ascending order, none of them twice. Rules that say the same in other words make the same
/// permissions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions(Vec<EgressRule>);

impl FromIterator<EgressRule> for Permissions {
    fn from_iter<I: IntoIterator<Item = EgressRule>>(rules: I) -> Self {
        let mut kinds: BTreeMap<(Traffic, bool), Vec<IpRange>> = BTreeMap::new();
        for EgressRule { destinations, traffic, log } in rules {
            kinds.entry((in_order(traffic), log)).or_default().extend(destinations);
        }
        let said_once = |((traffic, log), destinations)| EgressRule {
            destinations: merge(destinations),
            traffic,
            log,
        };
        Self(kinds.into_iter().map(said_once).collect())
    }
}

impl Permissions {
    /// A rule for each kind of traffic.
    pub fn rules(&self) -> &[EgressRule] {
        &self.0
    }

    /// Whether a TCP or UDP connection to `port` of `address` may be opened.
    pub fn allow(&self, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        self.reach(address, |traffic| traffic.opens(protocol, port))
    }

    /// Whether traffic of a kind that is `meant` may be sent to `address`.
    pub fn reach(&self, address: IpAddr, meant: impl Fn(&Traffic) -> bool) -> bool {
        self.0.iter().any(|rule| meant(&rule.traffic) && includes(&rule.destinations, address))
    }
}

/// Whether one of `ranges`, in ascending order and apart from each other, has `address`.
fn includes(ranges: &[IpRange], address: IpAddr) -> bool {
    let behind = ranges.partition_point(|range| range.start() <= address);
    behind.checked_sub(1).is_some_and(|last| ranges[last].contains(address))
}

fn in_order(traffic: Traffic) -> Traffic {
    match traffic {
        Traffic::Ports(protocol, mut ports) => {
            ports.sort_unstable();
            Traffic::Ports(protocol, merge_ports(&ports))
        }
        other => other,
    }
}

/// Those that overlap or touch made one.
fn merge_ports(sorted: &[PortRange]) -> Vec<PortRange> {
    let mut merged: Vec<PortRange> = Vec::new();
    for ports in sorted {
        match merged.last_mut() {
            Some(last) if u32::from(ports.start()) <= u32::from(last.end()) + 1 => {
                let end = last.end().max(ports.end());
                *last = PortRange::new(last.start(), end).expect("it only grew");
            }
            _ => merged.push(*ports),
        }
    }
    merged
}

/// In ascending order, those that overlap made one.
fn merge(mut ranges: Vec<IpRange>) -> Vec<IpRange> {
    ranges.sort_unstable();
    let mut merged: Vec<IpRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            // The families are ordered one after the other, so none begins inside a range of the other.
            Some(last) if range.start() <= last.end() => {
                let end = last.end().max(range.end());
                *last = IpRange::new(last.start(), end).expect("it only grew");
            }
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(traffic: Traffic, destinations: &[&str]) -> EgressRule {
        let destinations = destinations.iter().map(|text| text.parse().unwrap()).collect();
        EgressRule { destinations, traffic, log: false }
    }

    fn tcp(ports: &[&str]) -> Traffic {
        Traffic::Ports(Protocol::Tcp, ports.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn what_is_said_in_other_words_is_said_once() {
        let one: Permissions = [
            rule(tcp(&["90", "80", "81"]), &["10.0.0.0/8", "10.1.0.0/16"]),
            rule(tcp(&["80-81", "90"]), &["2001:db8::1", "1.1.1.1"]),
        ]
        .into_iter()
        .collect();
        let other = [rule(tcp(&["80-81", "90"]), &["1.1.1.1", "10.0.0.0/8", "2001:db8::1"])];
        assert_eq!(one.rules(), other);
    }

    #[test]
    fn what_is_said_is_allowed_and_nothing_beside_it() {
        let all: Permissions = [
            rule(tcp(&["80", "90-91"]), &["10.0.0.0/30", "10.1.0.1"]),
            rule(Traffic::All, &["10.2.0.1"]),
            rule(Traffic::Icmp(None, None), &["10.3.0.1"]),
        ]
        .into_iter()
        .collect();
        let allow =
            |protocol, address: &str, port| all.allow(protocol, address.parse().unwrap(), port);
        assert!(allow(Protocol::Tcp, "10.0.0.3", 80));
        assert!(allow(Protocol::Tcp, "10.1.0.1", 91));
        assert!(!allow(Protocol::Tcp, "10.0.0.4", 80));
        assert!(!allow(Protocol::Tcp, "10.0.0.3", 81));
        assert!(!allow(Protocol::Udp, "10.0.0.3", 80));
        assert!(!allow(Protocol::Tcp, "::a00:3", 80));
        assert!(allow(Protocol::Udp, "10.2.0.1", 9));
        assert!(!allow(Protocol::Tcp, "10.3.0.1", 80));
    }

    proptest! {
        #[test]
        fn said_together_rules_mean_what_they_mean_apart(
            rules in prop::collection::vec((0u8..30, 0u8..6, 1u16..9, 0u16..3), 0..12),
            address in 0u8..40, port in 1u16..12,
        ) {
            let last = |byte: u8| IpAddr::from([10, 0, 0, byte]);
            let rules: Vec<_> = rules
                .into_iter()
                .map(|(start, more, first, ports)| EgressRule {
                    destinations: vec![IpRange::new(last(start), last(start + more)).unwrap()],
                    traffic: Traffic::Ports(
                        Protocol::Tcp,
                        vec![PortRange::new(first, first + ports).unwrap()],
                    ),
                    log: false,
                })
                .collect();
            let apart = rules.iter().any(|rule| {
                rule.traffic.opens(Protocol::Tcp, port)
                    && rule.destinations[0].contains(last(address))
            });
            let together: Permissions = rules.into_iter().collect();
            prop_assert_eq!(together.allow(Protocol::Tcp, last(address), port), apart);
        }
    }
}
