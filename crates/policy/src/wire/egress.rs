//! The rules of a security group, as Cloud Controller says them and the policy server hands them on: a
//! JSON array inside a text (spec/policy-server.md §5.4, §7; spec/cell.md §B.5).
//!
//! The Go agent skips a rule it cannot express, and drops pieces of a list of ports that it cannot
//! read. Here each of them refuses the group: an app that silently lacks a rule is a riddle.

use gocompat::json::{self, JsonError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    EgressRule, InvalidIpv4Range, InvalidPortRange, Ipv4Range, PortRange, Protocol, Traffic,
};

/// One rule; what is absent is empty, 0 or false.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EgressRuleBody {
    /// `tcp`, `udp`, `icmp` or `all`.
    pub protocol: String,
    /// Addresses, networks and ranges of addresses, with commas between them and no blanks.
    pub destination: String,
    /// Ports and ranges of ports, with commas between them.
    pub ports: String,
    /// ICMP type; −1 for any.
    #[serde(rename = "type")]
    pub kind: i64,
    /// ICMP code; −1 for any.
    pub code: i64,
    /// What people say about it.
    pub description: String,
    /// Whether what passes is to be logged.
    pub log: bool,
}

/// Rules that cannot be understood. None of them may be enforced: the group would be another.
#[derive(Debug, Error)]
pub enum UnreadableEgress {
    /// The text is not the JSON of a list of rules.
    #[error("its rules are not a JSON array of rules")]
    Json(#[source] JsonError),
    /// One rule.
    #[error("rule {number}")]
    Rule {
        /// Which, from 1.
        number: usize,
        /// What is wrong with it.
        #[source]
        fault: EgressFault,
    },
}

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EgressFault {
    /// None of those there are.
    #[error("protocol {0:?} is unknown, expected tcp, udp, icmp or all")]
    Protocol(String),
    /// Part of the destination.
    #[error("destination")]
    Destination(#[from] InvalidIpv4Range),
    /// Nothing would be allowed, which nobody means.
    #[error("tcp and udp need ports")]
    NoPorts,
    /// Nobody can say what was meant.
    #[error("only tcp and udp have ports")]
    Ports,
    /// Part of the list of ports.
    #[error("ports")]
    PortRange(#[from] InvalidPortRange),
    /// No ICMP type.
    #[error("icmp type {0} is not -1 or 0 to 255")]
    IcmpType(i64),
    /// No ICMP code.
    #[error("icmp code {0} is not -1 or 0 to 255")]
    IcmpCode(i64),
}

/// What the text of a group's rules means: all of them, or nothing. `null` is an empty list.
pub fn read(rules: &str) -> Result<Vec<EgressRule>, UnreadableEgress> {
    let bodies: Option<Vec<EgressRuleBody>> =
        json::from_slice(rules.as_bytes()).map_err(UnreadableEgress::Json)?;
    let numbered = bodies.unwrap_or_default().into_iter().zip(1..);
    numbered
        .map(|(body, number)| {
            EgressRule::try_from(body).map_err(|fault| UnreadableEgress::Rule { number, fault })
        })
        .collect()
}

impl TryFrom<EgressRuleBody> for EgressRule {
    type Error = EgressFault;

    fn try_from(body: EgressRuleBody) -> Result<Self, EgressFault> {
        let EgressRuleBody { protocol, destination, ports, kind, code, description: _, log } = body;
        let no_ports = ports.trim().is_empty();
        let traffic = match protocol.as_str() {
            "tcp" | "udp" if no_ports => return Err(EgressFault::NoPorts),
            "tcp" => Traffic::Ports(Protocol::Tcp, port_ranges(&ports)?),
            "udp" => Traffic::Ports(Protocol::Udp, port_ranges(&ports)?),
            "icmp" | "all" if !no_ports => return Err(EgressFault::Ports),
            "icmp" => icmp(kind, code)?,
            "all" => Traffic::All,
            _ => return Err(EgressFault::Protocol(protocol)),
        };
        let networks = destination.split(',').map(str::parse::<Ipv4Range>);
        Ok(Self { networks: networks.collect::<Result<_, _>>()?, traffic, log })
    }
}

/// Port 0 stands for no port, so a range that starts there starts at 1.
fn port_ranges(list: &str) -> Result<Vec<PortRange>, InvalidPortRange> {
    let range = |text: &str| {
        let text: String = text.split_whitespace().collect();
        match text.strip_prefix("0-") {
            Some(end) => format!("1-{end}").parse(),
            None => text.parse(),
        }
    };
    list.split(',').map(range).collect()
}

fn icmp(kind: i64, code: i64) -> Result<Traffic, EgressFault> {
    let byte = |value: i64| match value {
        -1 | 255 => Ok(None),
        value => u8::try_from(value).map(Some),
    };
    let kind = byte(kind).map_err(|_| EgressFault::IcmpType(kind))?;
    let code = byte(code).map_err(|_| EgressFault::IcmpCode(code))?;
    Ok(Traffic::Icmp { kind, code: kind.and(code) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(json: &str) -> EgressRule {
        let [rule] = <[_; 1]>::try_from(read(&format!("[{json}]")).unwrap()).unwrap();
        rule
    }

    fn fault(json: &str) -> EgressFault {
        match read(&format!(r#"[{{"protocol":"all","destination":"10.0.0.1"}},{json}]"#)) {
            Err(UnreadableEgress::Rule { number: 2, fault }) => fault,
            other => panic!("{json}: {other:?}"),
        }
    }

    fn networks(texts: &[&str]) -> Vec<Ipv4Range> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn ports(texts: &[&str]) -> Vec<PortRange> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn lists_of_destinations_and_ports_are_read_whole() {
        let read = rule(
            r#"{"protocol":"tcp","destination":"10.0.0.1,10.1.0.0/16,10.2.0.1-10.2.0.9","ports":"80, 443,8000 - 8010","log":true}"#,
        );
        let expected = EgressRule {
            networks: networks(&["10.0.0.1", "10.1.0.0/16", "10.2.0.1-10.2.0.9"]),
            traffic: Traffic::Ports(Protocol::Tcp, ports(&["80", "443", "8000-8010"])),
            log: true,
        };
        assert_eq!(read, expected);
        let udp = rule(r#"{"protocol":"udp","destination":"0.0.0.0/0","ports":"0-53"}"#);
        assert_eq!(udp.traffic, Traffic::Ports(Protocol::Udp, ports(&["1-53"])));
        assert_eq!(read_none("[]") + read_none("null"), 0);
    }

    fn read_none(rules: &str) -> usize {
        read(rules).unwrap().len()
    }

    #[test]
    fn icmp_has_a_type_and_a_code_or_any() {
        let icmp = |kind: i64, code: i64| {
            rule(&format!(
                r#"{{"protocol":"icmp","destination":"10.0.0.1","ports":"","type":{kind},"code":{code}}}"#
            ))
            .traffic
        };
        assert_eq!(icmp(8, 0), Traffic::Icmp { kind: Some(8), code: Some(0) });
        assert_eq!(icmp(8, -1), Traffic::Icmp { kind: Some(8), code: None });
        assert_eq!(icmp(-1, -1), Traffic::Icmp { kind: None, code: None });
        assert_eq!(icmp(255, 3), Traffic::Icmp { kind: None, code: None });
        let wrong = r#"{"protocol":"icmp","destination":"10.0.0.1","type":256}"#;
        assert_eq!(fault(wrong), EgressFault::IcmpType(256));
        let wrong = r#"{"protocol":"icmp","destination":"10.0.0.1","code":-2}"#;
        assert_eq!(fault(wrong), EgressFault::IcmpCode(-2));
    }

    #[test]
    fn one_rule_that_cannot_be_meant_refuses_the_group() {
        assert_eq!(fault(r#"{"protocol":"tcp","destination":"10.0.0.1"}"#), EgressFault::NoPorts);
        let sctp = r#"{"protocol":"sctp","destination":"10.0.0.1"}"#;
        assert_eq!(fault(sctp), EgressFault::Protocol("sctp".into()));
        for protocol in ["all", "icmp"] {
            let rule =
                format!(r#"{{"protocol":"{protocol}","destination":"10.0.0.1","ports":"80"}}"#);
            assert_eq!(fault(&rule), EgressFault::Ports);
        }
        for destination in ["", "10.0.0.1, 10.0.0.2", "10.0.0.1,", "example.com", "fd00::1"] {
            let rule = format!(r#"{{"protocol":"all","destination":"{destination}"}}"#);
            assert!(matches!(fault(&rule), EgressFault::Destination(_)), "{destination}");
        }
        for ports in ["x", "80,", "90-80", "70000", "0"] {
            let rule =
                format!(r#"{{"protocol":"tcp","destination":"10.0.0.1","ports":"{ports}"}}"#);
            assert!(matches!(fault(&rule), EgressFault::PortRange(_)), "{ports}");
        }
        for text in ["", "{}", "[", "[1]", r#"[{"protocol":1}]"#] {
            assert!(matches!(read(text), Err(UnreadableEgress::Json(_))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_list_of_rules_or_refused(
            text in r#".*|\[\{"protocol":"(tcp|all|icmp)","destination":"[0-9.,/-]{0,30}","ports":"[0-9, -]{0,12}","type":-?[0-9]{1,3}\}\]"#
        ) {
            for rule in read(&text).unwrap_or_default() {
                prop_assert!(!rule.networks.is_empty());
                prop_assert!(!matches!(rule.traffic, Traffic::Ports(_, ranges) if ranges.is_empty()));
            }
        }
    }
}
