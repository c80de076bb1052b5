//! What became of a list of policies since a version of it (design §2.3): the answer to a cell that
//! has that version and asks, by RFC 3229, for the change instead of the whole.
//!
//! The request says `A-IM: netman-changes` beside `If-None-Match`; the answer is `226 IM Used` with
//! `IM: netman-changes`, the version the change starts from in `Delta-Base`, and the version it leads
//! to in `ETag`. The policies are in the form of version 1 of the internal API.

use serde::Deserialize;
use thiserror::Error;

use super::{
    UnreadablePolicy,
    v1::{PolicyBody, PolicyList},
};
use crate::TaggedPolicy;

/// The name of this way to tell changes, for `A-IM` and `IM`.
pub const MANIPULATION: &str = "netman-changes";

/// The body of the answer as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DeltaBody {
    total_policies: usize,
    removed: Vec<PolicyBody>,
    added: Vec<PolicyBody>,
}

/// What became of a list: take out what was removed, put in what was added, and there are `total`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// How many policies the list then has.
    pub total: usize,
    /// Those that are no more, with the tags they had. Our servers name only what the older list has.
    pub removed: Vec<TaggedPolicy>,
    /// Those that are there since. Our servers name only what the older list has not.
    pub added: Vec<TaggedPolicy>,
}

/// A body that cannot be understood; the whole answer is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnreadableDelta {
    /// One of the policies that are no more.
    #[error("what was removed is unreadable")]
    Removed(#[source] UnreadablePolicy),
    /// One of the policies that are there since.
    #[error("what was added is unreadable")]
    Added(#[source] UnreadablePolicy),
}

impl DeltaBody {
    /// What the body says. One unreadable policy refuses all of it.
    pub fn into_delta(self) -> Result<Delta, UnreadableDelta> {
        let Self { total_policies, removed, added } = self;
        let tagged = |policies| PolicyList { total_policies: 0, policies }.into_tagged();
        Ok(Delta {
            total: total_policies,
            removed: tagged(removed).map_err(UnreadableDelta::Removed)?,
            added: tagged(added).map_err(UnreadableDelta::Added)?,
        })
    }
}

/// The body that says this; policies are given as [`Form::V1Tagged`](super::line::Form) writes them.
pub fn write<'a>(
    total: usize,
    removed: impl IntoIterator<Item = &'a str>,
    added: impl IntoIterator<Item = &'a str>,
) -> String {
    let mut text = format!("{{\"total_policies\":{total},\"removed\":[");
    join(&mut text, removed);
    text.push_str("],\"added\":[");
    join(&mut text, added);
    text.push_str("]}");
    text
}

fn join<'a>(text: &mut String, lines: impl IntoIterator<Item = &'a str>) {
    for (position, line) in lines.into_iter().enumerate() {
        if position > 0 {
            text.push(',');
        }
        text.push_str(line);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Policy, PortRange, Protocol, Tag, TagLength, wire::line::Form};

    fn policies() -> impl Strategy<Value = Vec<TaggedPolicy>> {
        let one = (".{1,9}", ".{1,9}", any::<bool>(), 1u16.., 0u16..9, 1u32..65_536);
        prop::collection::vec(
            one.prop_map(|(source, destination, tcp, port, more, tag)| TaggedPolicy {
                policy: Policy {
                    source: source.parse().unwrap(),
                    destination: destination.parse().unwrap(),
                    protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
                    ports: PortRange::new(port, port.saturating_add(more)).unwrap(),
                },
                source_tag: Tag::new(tag).unwrap(),
                destination_tag: Tag::new(65_536 - tag).unwrap(),
            }),
            0..4,
        )
    }

    fn written(delta: &Delta) -> String {
        let lines = |policies: &[TaggedPolicy]| -> Vec<String> {
            let form = Form::V1Tagged(TagLength::DEFAULT);
            policies.iter().map(|policy| form.write(policy)).collect()
        };
        let (removed, added) = (lines(&delta.removed), lines(&delta.added));
        write(delta.total, removed.iter().map(|line| &**line), added.iter().map(|line| &**line))
    }

    fn read(text: &str) -> Option<Result<Delta, UnreadableDelta>> {
        gocompat::json::from_slice::<DeltaBody>(text.as_bytes()).ok().map(DeltaBody::into_delta)
    }

    #[test]
    fn a_body_has_its_keys_in_their_order() {
        assert_eq!(write(7, [], []), r#"{"total_policies":7,"removed":[],"added":[]}"#);
        let body = write(1, ["1", "2"], ["3"]);
        assert_eq!(body, r#"{"total_policies":1,"removed":[1,2],"added":[3]}"#);
    }

    #[test]
    fn what_is_missing_or_wrong_refuses_the_whole() {
        for text in [
            "",
            "{}",
            "null",
            r#"{"removed":[],"added":[]}"#,
            r#"{"total_policies":1,"added":[]}"#,
            r#"{"total_policies":1,"removed":[]}"#,
            r#"{"total_policies":-1,"removed":[],"added":[]}"#,
            r#"{"total_policies":1,"policies":[]}"#,
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        let read = |text| read(text).unwrap().unwrap_err();
        let removed = read(r#"{"total_policies":1,"removed":[{}],"added":[]}"#);
        assert!(matches!(removed, UnreadableDelta::Removed(UnreadablePolicy { index: 0, .. })));
        let added = read(r#"{"total_policies":1,"removed":[],"added":[{}]}"#);
        assert!(matches!(added, UnreadableDelta::Added(UnreadablePolicy { index: 0, .. })));
    }

    proptest! {
        #[test]
        fn a_delta_comes_back_as_it_was(total: u32, removed in policies(), added in policies()) {
            let delta = Delta { total: total as usize, removed, added };
            prop_assert_eq!(read(&written(&delta)), Some(Ok(delta)));
        }

        #[test]
        fn any_bytes_are_a_delta_or_refused(
            text in prop_oneof![
                ".*",
                r#"\{"total_policies":[0-9]{1,3},"removed":\[(\{\}|null)?\],"added":\[.{0,9}\]\}"#,
            ],
        ) {
            let _ = read(&text);
        }
    }
}
