//! Version 0: one port per policy. A policy over a real range cannot be said here, so lists leave
//! it out (spec/policy-server.md §2.7).

use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use super::{Source, ends};
use crate::{InvalidPolicy, Policy, PortRange, Protocol};

/// A list of policies: body of create and delete, answer of list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = v0::PolicyList))]
#[serde(default, rename = "api_v0.Policies")]
pub struct PolicyList {
    /// Length of `policies`; ignored on input.
    #[serde(skip_deserializing)]
    pub total_policies: usize,
    /// Never null on output.
    pub policies: Vec<PolicyBody>,
}

/// One policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = v0::Policy))]
#[serde(default, rename = "api_v0.Policy")]
pub struct PolicyBody {
    /// Who may send.
    pub source: Source,
    /// Who is reached, and how.
    pub destination: Destination,
}

/// The receiving end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = v0::Destination))]
#[serde(default, rename = "api_v0.Destination")]
pub struct Destination {
    /// App GUID.
    #[cfg_attr(feature = "openapi", schema(min_length = 1))]
    pub id: String,
    /// Refused from callers, never sent.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[cfg_attr(feature = "openapi", schema(ignore))]
    pub tag: String,
    /// `tcp` or `udp`.
    #[cfg_attr(feature = "openapi", schema(pattern = "^(tcp|udp)$"))]
    pub protocol: String,
    /// The one port.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65535))]
    pub port: i64,
}

impl PolicyList {
    /// The list that is sent for those of `policies` that have a single port.
    pub fn of(policies: &[Policy]) -> Self {
        let policies: Vec<_> = policies.iter().filter_map(PolicyBody::of).collect();
        Self { total_policies: policies.len(), policies }
    }

    /// What a caller asks for, by the rules of spec/policy-server.md §2.8. Ports above 65535 are
    /// refused, as §16 decides.
    pub fn validate(&self) -> Result<Vec<Policy>, InvalidPolicy> {
        if self.policies.is_empty() {
            return Err(InvalidPolicy::NoPolicies);
        }
        self.policies.iter().map(PolicyBody::validate).collect()
    }
}

impl PolicyBody {
    fn of(policy: &Policy) -> Option<Self> {
        let Policy { source, destination, protocol, ports } = policy;
        Some(Self {
            source: Source { id: source.to_string(), tag: String::new() },
            destination: Destination {
                id: destination.to_string(),
                tag: String::new(),
                protocol: protocol.to_string(),
                port: ports.as_single()?.into(),
            },
        })
    }

    fn validate(&self) -> Result<Policy, InvalidPolicy> {
        let Self { source, destination } = self;
        let (source_app, destination_app) = ends(&source.id, &destination.id)?;
        let protocol =
            destination.protocol.parse::<Protocol>().map_err(|_| InvalidPolicy::Protocol)?;
        let port = match u16::try_from(destination.port) {
            Ok(port) => NonZeroU16::new(port).ok_or(InvalidPolicy::NoPort)?,
            Err(_) => return Err(InvalidPolicy::Port(destination.port)),
        };
        if !source.tag.is_empty() || !destination.tag.is_empty() {
            return Err(InvalidPolicy::Tagged);
        }
        let ports = PortRange::single(port);
        Ok(Policy { source: source_app, destination: destination_app, protocol, ports })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(json: &str) -> String {
        let list: PolicyList = gocompat::json::from_slice(json.as_bytes()).unwrap();
        list.validate().unwrap_err().to_string()
    }

    #[test]
    fn each_rule_answers_with_its_own_text() {
        let with = |destination: &str| {
            refusal(&format!(
                r#"{{"policies":[{{"source":{{"id":"a"}},"destination":{{{destination}}}}}]}}"#
            ))
        };
        assert_eq!(refusal(r#"{"policies":null}"#), "missing policies");
        assert_eq!(refusal(r#"{"policies":[{}]}"#), "missing source id");
        assert_eq!(with(r#""protocol":"tcp""#), "missing destination id");
        assert_eq!(
            with(r#""id":"b","protocol":"sctp","port":1"#),
            "invalid destination protocol, specify either udp or tcp"
        );
        assert_eq!(
            with(r#""id":"b","protocol":"tcp","port":-1"#),
            "invalid port -1, must be in range 1-65535"
        );
        assert_eq!(
            with(r#""id":"b","protocol":"tcp","port":70000"#),
            "invalid port 70000, must be in range 1-65535"
        );
        assert_eq!(
            with(r#""id":"b","protocol":"tcp","ports":{"start":1,"end":2}"#),
            "missing port"
        );
        assert_eq!(
            with(r#""id":"b","protocol":"tcp","port":1,"tag":"1""#),
            "tags may not be specified"
        );
    }

    #[test]
    fn ranges_are_left_out_of_lists() {
        let policy = |ports: &str| Policy {
            source: "a".parse().unwrap(),
            destination: "b".parse().unwrap(),
            protocol: Protocol::Tcp,
            ports: ports.parse().unwrap(),
        };
        let list = PolicyList::of(&[policy("1-2"), policy("7")]);
        assert_eq!(list.total_policies, 1);
        assert_eq!(list.policies[0].destination.port, 7);
    }
}
