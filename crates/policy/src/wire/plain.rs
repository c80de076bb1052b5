//! Lists of tagged policies as our own servers write them (version 1 of the internal API), read in one
//! go and each name kept once. What is written in any other way is left to the decoder that is as
//! lenient as Go's, which takes a copy of every word; a list of 50,000 is nothing unusual.

use std::{borrow::Borrow, collections::HashSet};

use serde::Deserialize;

use crate::{AppGuid, Policy, PortRange, Tag, TaggedPolicy};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List<'a> {
    #[serde(rename = "total_policies")]
    _total: Option<usize>,
    #[serde(borrow)]
    policies: Vec<Body<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    #[serde(borrow)]
    source: Source<'a>,
    #[serde(borrow)]
    destination: Destination<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source<'a> {
    id: &'a str,
    tag: &'a str,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Destination<'a> {
    id: &'a str,
    tag: &'a str,
    protocol: &'a str,
    ports: Ports,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ports {
    start: u16,
    end: u16,
}

/// Reads policies; what they name several times is kept once.
#[derive(Debug, Default)]
pub struct Reader {
    apps: HashSet<Name>,
}

/// Compared and hashed as its text is.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Name(AppGuid);

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self.0.as_str()
    }
}

impl Reader {
    /// Reads a list; `None` if it is not written as our servers do, or not valid.
    pub fn list(&mut self, json: &[u8]) -> Option<Vec<TaggedPolicy>> {
        let List { policies, .. } = serde_json::from_slice(json).ok()?;
        policies.into_iter().map(|body| self.tagged(body)).collect()
    }

    /// Reads a single policy, likewise.
    pub fn policy(&mut self, json: &[u8]) -> Option<TaggedPolicy> {
        self.tagged(serde_json::from_slice(json).ok()?)
    }

    fn tagged(&mut self, Body { source, destination }: Body<'_>) -> Option<TaggedPolicy> {
        let Destination { id, tag, protocol, ports: Ports { start, end } } = destination;
        Some(TaggedPolicy {
            policy: Policy {
                source: self.app(source.id)?,
                destination: self.app(id)?,
                protocol: protocol.parse().ok()?,
                ports: PortRange::new(start, end).ok()?,
            },
            source_tag: Tag::from_hex(source.tag).ok()?,
            destination_tag: Tag::from_hex(tag).ok()?,
        })
    }

    fn app(&mut self, id: &str) -> Option<AppGuid> {
        if let Some(Name(known)) = self.apps.get(id) {
            return Some(known.clone());
        }
        let app: AppGuid = id.parse().ok()?;
        self.apps.insert(Name(app.clone()));
        Some(app)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::v1::{Destination, PolicyBody, PolicyList, Ports};
    use crate::{TagLength, wire, wire::line::Form};

    fn word() -> impl Strategy<Value = String> {
        prop_oneof![4 => "[a-c]", 1 => ".{0,3}"]
    }

    fn bodies() -> impl Strategy<Value = Vec<PolicyBody>> {
        let tag = || prop_oneof![6 => "000[1-9]", 1 => ".{0,3}"];
        let protocol =
            prop_oneof![6 => Just("tcp".to_owned()), 6 => Just("udp".into()), 1 => word()];
        let port = || prop_oneof![9 => 1i64..9, 1 => any::<i64>()];
        let one = (word(), tag(), word(), tag(), protocol, port(), port());
        let one = one.prop_map(|(id, tag, to, to_tag, protocol, start, end)| PolicyBody {
            source: wire::Source { id, tag },
            destination: Destination { id: to, tag: to_tag, protocol, ports: Ports { start, end } },
        });
        prop::collection::vec(one, 0..4)
    }

    proptest! {
        /// What is read plainly means what it means to the lenient decoder, and what our servers write
        /// is read plainly.
        #[test]
        fn both_decoders_agree(policies in bodies(), missing in any::<bool>()) {
            let list = PolicyList { total_policies: policies.len(), policies };
            let mut json = gocompat::json::to_string(&list);
            if missing {
                json = json.replacen("\"protocol\":\"udp\"", "\"Protocol\":\"udp\"", 1);
            }
            let lenient: PolicyList = gocompat::json::from_slice(json.as_bytes()).unwrap();
            let plain = Reader::default().list(json.as_bytes());
            match (plain, lenient.into_tagged()) {
                (Some(plain), lenient) => prop_assert_eq!(Ok(&plain), lenient.as_ref()),
                (None, Ok(lenient)) => {
                    let odd = |text: &str| text.contains(['"', '\\', '<', '>', '&']) || text.chars().any(|c| c.is_control() || c > '~');
                    let is_odd = lenient.iter().any(|p| odd(p.policy.source.as_str()) || odd(p.policy.destination.as_str()));
                    prop_assert!(is_odd || missing, "{}", json);
                }
                (None, Err(_)) => {}
            }
        }

        #[test]
        fn any_text_is_policies_or_none(json in ".*") {
            let _ = Reader::default().list(json.as_bytes());
            let _ = Reader::default().policy(json.as_bytes());
        }
    }

    #[test]
    fn a_single_line_is_read() {
        let json = r#"{"source":{"id":"web","tag":"0001"},"destination":{"id":"db","tag":"0002","protocol":"tcp","ports":{"start":80,"end":81}}}"#;
        let policy = Reader::default().policy(json.as_bytes()).unwrap();
        assert_eq!(Form::V1Tagged(TagLength::DEFAULT).write(&policy), json);
    }
}
