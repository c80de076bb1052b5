//! Version 1: port ranges. Also the shape of the internal API, there with tags.

use serde::{Deserialize, Serialize};

use super::{FieldFault, Source, UnreadablePolicy, ends};
use crate::{InvalidPolicy, Policy, PortRange, Protocol, Tag, TagLength, TaggedPolicy};

/// A list of policies: body of create and delete, answer of list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = v1::PolicyList))]
#[serde(default, rename = "api.PoliciesPayload")]
pub struct PolicyList {
    /// Length of `policies`; ignored on input.
    #[serde(skip_deserializing)]
    pub total_policies: usize,
    /// Never null on output.
    pub policies: Vec<PolicyBody>,
}

/// One policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = v1::Policy))]
#[serde(default, rename = "api.Policy")]
pub struct PolicyBody {
    /// Who may send.
    pub source: Source,
    /// Who is reached, and how.
    pub destination: Destination,
}

/// The receiving end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = v1::Destination))]
#[serde(default, rename = "api.Destination")]
pub struct Destination {
    /// App GUID.
    #[cfg_attr(feature = "openapi", schema(min_length = 1))]
    pub id: String,
    /// Hexadecimal tag; sent only on the internal API, refused from callers.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[cfg_attr(feature = "openapi", schema(ignore))]
    pub tag: String,
    /// `tcp` or `udp`.
    #[cfg_attr(feature = "openapi", schema(pattern = "^(tcp|udp)$"))]
    pub protocol: String,
    /// Inclusive range.
    pub ports: Ports,
}

/// An inclusive port range as sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = v1::Ports))]
#[serde(default, rename = "api.Ports")]
pub struct Ports {
    /// First port.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65535))]
    pub start: i64,
    /// Last port.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65535))]
    pub end: i64,
}

impl PolicyList {
    /// The list that is sent for `policies`, without tags.
    pub fn of(policies: &[Policy]) -> Self {
        Self::of_bodies(policies.iter().map(PolicyBody::of).collect())
    }

    /// The list the internal API sends, tags included.
    pub fn of_tagged(policies: &[TaggedPolicy], length: TagLength) -> Self {
        Self::of_bodies(
            policies.iter().map(|tagged| PolicyBody::of_tagged(tagged, length)).collect(),
        )
    }

    fn of_bodies(policies: Vec<PolicyBody>) -> Self {
        Self { total_policies: policies.len(), policies }
    }

    /// What a caller of create or delete asks for, by the rules of spec/policy-server.md §2.8: the
    /// first fault of the first faulty policy refuses the request.
    pub fn validate(&self) -> Result<Vec<Policy>, InvalidPolicy> {
        if self.policies.is_empty() {
            return Err(InvalidPolicy::NoPolicies);
        }
        self.policies.iter().map(PolicyBody::validate).collect()
    }

    /// What the internal API answered. One unreadable policy refuses the whole answer.
    pub fn into_tagged(self) -> Result<Vec<TaggedPolicy>, UnreadablePolicy> {
        let Self { total_policies: _, policies } = self;
        let readable = |(index, body): (usize, PolicyBody)| {
            body.into_tagged().map_err(|fault| UnreadablePolicy { index, fault })
        };
        policies.into_iter().enumerate().map(readable).collect()
    }
}

impl PolicyBody {
    /// The body that is sent for `policy`, without tags.
    pub fn of(policy: &Policy) -> Self {
        let Policy { source, destination, protocol, ports } = policy;
        Self {
            source: Source { id: source.to_string(), tag: String::new() },
            destination: Destination {
                id: destination.to_string(),
                tag: String::new(),
                protocol: protocol.to_string(),
                ports: Ports { start: ports.start().into(), end: ports.end().into() },
            },
        }
    }

    fn of_tagged(tagged: &TaggedPolicy, length: TagLength) -> Self {
        let TaggedPolicy { policy, source_tag, destination_tag } = tagged;
        let mut body = Self::of(policy);
        body.source.tag = source_tag.to_hex(length);
        body.destination.tag = destination_tag.to_hex(length);
        body
    }

    fn validate(&self) -> Result<Policy, InvalidPolicy> {
        let Self { source, destination } = self;
        let (source_app, destination_app) = ends(&source.id, &destination.id)?;
        let protocol =
            destination.protocol.parse::<Protocol>().map_err(|_| InvalidPolicy::Protocol)?;
        let ports = destination.ports.validate()?;
        if !source.tag.is_empty() || !destination.tag.is_empty() {
            return Err(InvalidPolicy::Tagged);
        }
        Ok(Policy { source: source_app, destination: destination_app, protocol, ports })
    }

    fn into_tagged(self) -> Result<TaggedPolicy, FieldFault> {
        let Self { source: Source { id: source, tag: source_tag }, destination } = self;
        let Destination { id, tag, protocol, ports: Ports { start, end } } = destination;
        let port = |port: i64| u16::try_from(port).map_err(|_| FieldFault::Port(port));
        Ok(TaggedPolicy {
            policy: Policy {
                source: source.parse().map_err(FieldFault::SourceId)?,
                destination: id.parse().map_err(FieldFault::DestinationId)?,
                protocol: protocol.parse().map_err(FieldFault::Protocol)?,
                ports: PortRange::new(port(start)?, port(end)?).map_err(FieldFault::Ports)?,
            },
            source_tag: Tag::from_hex(&source_tag).map_err(FieldFault::SourceTag)?,
            destination_tag: Tag::from_hex(&tag).map_err(FieldFault::DestinationTag)?,
        })
    }
}

impl Ports {
    /// Rules 5 to 8, in the order that decides which text a caller sees.
    fn validate(self) -> Result<PortRange, InvalidPolicy> {
        let Self { start, end } = self;
        if start > end {
            return Err(InvalidPolicy::ReversedRange { start, end });
        }
        if start < 0 {
            return Err(InvalidPolicy::StartPort(start));
        }
        if start == 0 {
            return Err(InvalidPolicy::NoStartPort);
        }
        let last = u16::try_from(end).map_err(|_| InvalidPolicy::EndPort(end))?;
        let first = u16::try_from(start).map_err(|_| InvalidPolicy::StartPort(start))?;
        PortRange::new(first, last).map_err(|_| InvalidPolicy::ReversedRange { start, end })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(protocol: &str, start: i64, end: i64) -> PolicyBody {
        PolicyBody {
            source: Source { id: "web".into(), tag: String::new() },
            destination: Destination {
                id: "db".into(),
                tag: String::new(),
                protocol: protocol.into(),
                ports: Ports { start, end },
            },
        }
    }

    fn refusal(body: PolicyBody) -> String {
        let list = PolicyList { total_policies: 0, policies: vec![body] };
        list.validate().unwrap_err().to_string()
    }

    #[test]
    fn each_rule_answers_with_its_own_text() {
        let invalid_protocol = "invalid destination protocol, specify either udp or tcp";
        let reversed =
            |range| format!("invalid port range {range}, start must be less than or equal to end");
        assert_eq!(PolicyList::default().validate().unwrap_err().to_string(), "missing policies");
        assert_eq!(refusal(PolicyBody::default()), "missing source id");
        let mut no_destination = body("tcp", 1, 1);
        no_destination.destination.id.clear();
        assert_eq!(refusal(no_destination), "missing destination id");
        assert_eq!(refusal(body("TCP", 1, 1)), invalid_protocol);
        assert_eq!(refusal(body("", 1, 1)), invalid_protocol);
        assert_eq!(refusal(body("tcp", 10, 9)), reversed("10-9"));
        assert_eq!(refusal(body("tcp", 8080, 0)), reversed("8080-0"));
        assert_eq!(refusal(body("tcp", -1, 9)), "invalid start port -1, must be in range 1-65535");
        assert_eq!(refusal(body("tcp", 0, 9)), "missing start port");
        assert_eq!(
            refusal(body("tcp", 1, 65536)),
            "invalid end port 65536, must be in range 1-65535"
        );
        let mut tagged = body("udp", 1, 65535);
        tagged.destination.tag = "0001".into();
        assert_eq!(refusal(tagged), "tags may not be specified");
    }

    #[test]
    fn one_bad_policy_refuses_the_whole_answer() {
        let good = TaggedPolicy {
            policy: body("tcp", 1, 2).validate().unwrap(),
            source_tag: Tag::new(1).unwrap(),
            destination_tag: Tag::new(2).unwrap(),
        };
        let mut list = PolicyList::of_tagged(&[good.clone(), good], TagLength::DEFAULT);
        list.policies[1].source.tag = "zz".into();
        assert_eq!(list.into_tagged().unwrap_err().index, 1);
    }

    proptest! {
        #[test]
        fn what_is_valid_comes_back_the_same(
            source in ".{1,8}", destination in ".{1,8}", udp: bool, a in 1u16.., b in 1u16..,
        ) {
            let policy = Policy {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
                ports: PortRange::new(a.min(b), a.max(b)).unwrap(),
            };
            let sent = gocompat::json::to_string(&PolicyList::of(std::slice::from_ref(&policy)));
            let read: PolicyList = gocompat::json::from_slice(sent.as_bytes()).unwrap();
            prop_assert_eq!(read.validate(), Ok(vec![policy]));
        }
    }
}
