//! Answers of Cloud Controller, as far as they matter here.

use gocompat::json::JsonError;
use serde::{Deserialize, de::DeserializeOwned};

use super::{App, CloudControllerError, SpaceGuid};
use crate::outbound::CallError;

/// A list of version 3. Whether there is a list at all decides whether policies are deleted, so a
/// missing one is not an empty one.
#[derive(Deserialize)]
#[serde(default, bound = "T: DeserializeOwned")]
pub(super) struct V3List<T> {
    pub pagination: V3Pagination,
    pub resources: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct V3Pagination {
    pub total_pages: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct V3App {
    guid: String,
    links: Links,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Links {
    space: Link,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Link {
    href: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct V3Role {
    pub r#type: String,
    pub relationships: Relationships,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Relationships {
    pub user: Relationship,
    pub space: Relationship,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Relationship {
    pub data: Data,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Data {
    pub guid: String,
}

/// A list of spaces of version 2.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct V2Spaces {
    pub next_url: String,
    pub resources: Option<Vec<V2Space>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct V2Space {
    pub metadata: Data,
    pub entity: V2SpaceEntity,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct V2SpaceEntity {
    pub name: String,
    pub organization_guid: String,
}

impl<T> Default for V3List<T> {
    fn default() -> Self {
        Self { pagination: V3Pagination::default(), resources: None }
    }
}

/// The JSON of an answer about `what`.
pub(super) fn read<T: DeserializeOwned>(
    what: &'static str,
    body: &[u8],
) -> Result<T, CloudControllerError> {
    gocompat::json::from_slice(body).map_err(|error: JsonError| CloudControllerError::Call {
        what,
        source: CallError::Unreadable(error),
    })
}

/// The list in an answer about `what`, which must be there.
pub(super) fn listed<T>(
    what: &'static str,
    resources: Option<Vec<T>>,
) -> Result<Vec<T>, CloudControllerError> {
    resources.ok_or(CloudControllerError::Unusable { what, fault: "it has no list of resources" })
}

/// The apps a body lists, which must be all there are to list.
pub(super) fn apps(body: &[u8]) -> Result<Vec<App>, CloudControllerError> {
    const WHAT: &str = "apps";
    let list: V3List<V3App> = read(WHAT, body)?;
    if list.pagination.total_pages > 1 {
        return Err(CloudControllerError::Paged);
    }
    let app = |app: V3App| {
        let fault = "an app has no guid";
        let guid =
            app.guid.parse().map_err(|_| CloudControllerError::Unusable { what: WHAT, fault })?;
        Ok(App { guid, space: SpaceGuid::of_link(&app.links.space.href) })
    };
    listed(WHAT, list.resources)?.into_iter().map(app).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_app_is_where_its_link_ends() {
        let body = r#"{"pagination":{"total_pages":1},"resources":[
            {"guid":"a","links":{"space":{"href":"https://api.test/v3/spaces/s-1"}}},
            {"guid":"b","links":{"space":{"href":"https://api.test/v3/spaces/"}}},
            {"guid":"c","links":{"space":null}},
            {"guid":"d"}]}"#;
        let spaces: Vec<_> =
            apps(body.as_bytes()).unwrap().into_iter().map(|app| app.space).collect();
        assert_eq!(spaces, [SpaceGuid::new("s-1"), None, None, None]);
    }

    #[test]
    fn without_a_whole_list_of_apps_there_is_none() {
        for body in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"resources":null}"#,
            r#"{"resources":{}}"#,
            r#"{"resources":"none"}"#,
            r#"{"resources":[{"guid":7}]}"#,
            r#"{"resources":[{"guid":"a"},{}]}"#,
            r#"{"resources":[null]}"#,
            r#"{"resources":["a"]}"#,
            r#"{"resources":[]"#,
            r#"{"resources":[]} {}"#,
            r#"{"error":"out of order"}"#,
        ] {
            assert!(apps(body.as_bytes()).is_err(), "{body}");
        }
        assert!(apps(br#"{"resources":[]}"#).unwrap().is_empty());
    }

    #[test]
    fn more_than_one_page_of_apps_is_refused() {
        let body = r#"{"pagination":{"total_pages":2},"resources":[]}"#;
        let error = apps(body.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "pagination support not yet implemented");
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_refused(
            bytes: Vec<u8>,
            text in "[\\[\\]{}:,\"a-z0-9 ]{0,60}",
        ) {
            for body in [&bytes[..], text.as_bytes()] {
                let _ = apps(body);
                let _ = read::<V3List<V3Role>>("roles", body);
                let _ = read::<V2Spaces>("spaces", body);
                let _ = read::<V2Space>("a space", body);
            }
        }
    }
}
