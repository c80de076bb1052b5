//! One policy of a list, written straight from the domain type. A list of 100,000 is nothing unusual,
//! so nothing is copied on the way.

use std::ops::Range;

use serde::Serialize;

use super::v1::Ports;
use crate::{Policy, Tag, TagLength, TaggedPolicy};

/// How the policies of a list are written (spec/policy-server.md §2.6, §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One port, no tags: version 0, for callers.
    V0,
    /// Ports, no tags: version 1, for callers.
    V1,
    /// One port, tags: version 0 for cells, as they were in 2016.
    V0Tagged(TagLength),
    /// One port both as `port` and as `ports`, tags: version 0 for cells of any age.
    V0Both(TagLength),
    /// Ports, tags: version 1, for cells.
    V1Tagged(TagLength),
}

/// A policy in the form [`V1Tagged`](Form::V1Tagged), kept because it is asked for often, from which
/// [`V1`](Form::V1) is had by leaving the tags out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptLine {
    text: Box<str>,
    source_tag: Range<usize>,
    destination_tag: Range<usize>,
}

#[derive(Serialize)]
struct Line<'a> {
    source: Source<'a>,
    destination: Destination<'a>,
}

#[derive(Serialize)]
struct Source<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
}

#[derive(Serialize)]
struct Destination<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<Ports>,
}

impl Form {
    /// Whether this form can say `policy`: version 0 knows no ranges.
    pub fn says(self, policy: &Policy) -> bool {
        match self {
            Self::V0 | Self::V0Tagged(_) | Self::V0Both(_) => policy.ports.as_single().is_some(),
            Self::V1 | Self::V1Tagged(_) => true,
        }
    }

    /// `tagged` as JSON. A range in a form that cannot say it comes out without ports; ask
    /// [`says`](Self::says) first.
    pub fn write(self, tagged: &TaggedPolicy) -> String {
        let TaggedPolicy { policy, source_tag, destination_tag } = tagged;
        let Policy { source, destination, protocol, ports } = policy;
        let (length, one, range) = match self {
            Self::V0 => (None, true, false),
            Self::V1 => (None, false, true),
            Self::V0Tagged(length) => (Some(length), true, false),
            Self::V0Both(length) => (Some(length), true, true),
            Self::V1Tagged(length) => (Some(length), false, true),
        };
        let tag = |tag: Tag| length.map(|length| tag.to_hex(length));
        gocompat::json::to_string(&Line {
            source: Source { id: source.as_str(), tag: tag(*source_tag) },
            destination: Destination {
                id: destination.as_str(),
                tag: tag(*destination_tag),
                protocol: protocol.as_str(),
                port: ports.as_single().filter(|_| one),
                ports: range
                    .then(|| Ports { start: ports.start().into(), end: ports.end().into() }),
            },
        })
    }
}

impl KeptLine {
    /// The line of `tagged`, with tags of this length.
    pub fn new(tagged: &TaggedPolicy, length: TagLength) -> Self {
        let text = Form::V1Tagged(length).write(tagged);
        // What is searched for has quotes of its own, so it is not found inside a name.
        let tag_in = |part: &str, after: usize| {
            let start = after + part.find(r#","tag":""#)?;
            let end = start + 1 + text[start + 1..].find(['}', ','])?;
            Some(start..end)
        };
        let half = text.find(r#""},"destination":"#).unwrap_or(0);
        let source_tag = tag_in(&text, 0).unwrap_or_default();
        let destination_tag = tag_in(&text[half..], half).unwrap_or_default();
        Self { text: text.into(), source_tag, destination_tag }
    }

    /// With tags.
    pub fn tagged(&self) -> &str {
        &self.text
    }

    /// Without tags, in three parts.
    pub fn untagged(&self) -> [&str; 3] {
        let Self { text, source_tag, destination_tag } = self;
        [
            &text[..source_tag.start],
            &text[source_tag.end..destination_tag.start],
            &text[destination_tag.end..],
        ]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{v0, v1};

    fn tagged(source: &str, ports: &str) -> TaggedPolicy {
        TaggedPolicy {
            policy: Policy {
                source: source.parse().unwrap(),
                destination: "db".parse().unwrap(),
                protocol: crate::Protocol::Tcp,
                ports: ports.parse().unwrap(),
            },
            source_tag: Tag::new(10).unwrap(),
            destination_tag: Tag::new(11).unwrap(),
        }
    }

    #[test]
    fn each_form_has_its_keys_in_their_order() {
        let one = tagged("web", "80");
        let two = TagLength::DEFAULT;
        assert_eq!(
            Form::V0Tagged(two).write(&one),
            r#"{"source":{"id":"web","tag":"000A"},"destination":{"id":"db","tag":"000B","protocol":"tcp","port":80}}"#
        );
        assert_eq!(
            Form::V0Both(two).write(&one),
            r#"{"source":{"id":"web","tag":"000A"},"destination":{"id":"db","tag":"000B","protocol":"tcp","port":80,"ports":{"start":80,"end":80}}}"#
        );
        let range = tagged("<web>", "7-9");
        assert!(!Form::V0.says(&range.policy) && Form::V0.says(&one.policy));
        assert!(Form::V1Tagged(two).says(&range.policy));
        assert_eq!(
            Form::V1Tagged(two).write(&range),
            r#"{"source":{"id":"\u003cweb\u003e","tag":"000A"},"destination":{"id":"db","tag":"000B","protocol":"tcp","ports":{"start":7,"end":9}}}"#
        );
    }

    proptest! {
        #[test]
        fn lines_are_what_the_lists_of_both_versions_hold(source in ".{1,9}", port in 1u16..) {
            let tagged = tagged(&source, &port.to_string());
            let policies = [tagged.policy.clone()];
            let v0 = gocompat::json::to_string(&v0::PolicyList::of(&policies).policies[0]);
            let v1 = gocompat::json::to_string(&v1::PolicyList::of(&policies).policies[0]);
            prop_assert_eq!(Form::V0.write(&tagged), v0);
            prop_assert_eq!(Form::V1.write(&tagged), v1);
            let cells = v1::PolicyList::of_tagged(std::slice::from_ref(&tagged), TagLength::DEFAULT);
            let cells = gocompat::json::to_string(&cells.policies[0]);
            prop_assert_eq!(Form::V1Tagged(TagLength::DEFAULT).write(&tagged), cells);
        }

        #[test]
        fn a_kept_line_is_both_forms(
            source in prop_oneof![".{1,9}", r#"[\\"},:{tag]{1,20}"#, Just(r#"","tag":""},"destination":"#.to_owned())],
            digits in 1i64..=3,
        ) {
            let tagged = tagged(&source, "7-9");
            let length = TagLength::new(digits).unwrap();
            let line = KeptLine::new(&tagged, length);
            prop_assert_eq!(line.tagged(), Form::V1Tagged(length).write(&tagged));
            prop_assert_eq!(line.untagged().concat(), Form::V1.write(&tagged));
        }
    }
}
