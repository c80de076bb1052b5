//! A page of Cloud Controller's `GET /v3/security_groups` (spec/policy-server.md §7).

use gocompat::json::JsonError;
use policy::SecurityGroup;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What a page amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The groups on it.
    pub groups: Vec<SecurityGroup>,
    /// Whether Cloud Controller says that there is another.
    pub has_next: bool,
}

/// A page that cannot be understood. The whole list is refused with it.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each text says what the variant means")]
pub enum PageError {
    #[error("the page is not the JSON of a list of security groups")]
    Unparsed(#[source] JsonError),
    #[error("security group {0} of the page has no guid")]
    NoGuid(usize),
    #[error("security group {guid:?} is bound to a space without a guid")]
    NoSpaceGuid { guid: String },
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    pagination: Pagination,
    resources: Option<Vec<Resource>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pagination {
    next: Option<Next>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Next {
    href: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resource {
    guid: String,
    name: String,
    globally_enabled: Enabled,
    rules: Vec<Rule>,
    relationships: Relationships,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Enabled {
    running: bool,
    staging: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Relationships {
    running_spaces: Spaces,
    staging_spaces: Spaces,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spaces {
    data: Vec<Space>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Space {
    guid: String,
}

/// A rule as it is stored and sent: every key, in this order, whatever Cloud Controller left out or
/// added. Cells have always got it like this.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Rule {
    protocol: String,
    destination: String,
    ports: String,
    r#type: i64,
    code: i64,
    description: String,
    log: bool,
}

impl Page {
    /// The page a body says.
    pub fn read(body: &[u8]) -> Result<Self, PageError> {
        let Body { pagination, resources } =
            gocompat::json::from_slice(body).map_err(PageError::Unparsed)?;
        // Without a list there is nothing to go on with, whatever is said of a next page.
        let has_list = resources.is_some();
        let groups = resources.into_iter().flatten().enumerate().map(|(index, resource)| {
            if resource.guid.is_empty() { Err(PageError::NoGuid(index)) } else { resource.group() }
        });
        Ok(Self {
            groups: groups.collect::<Result<_, _>>()?,
            has_next: has_list && pagination.next.is_some_and(|next| !next.href.is_empty()),
        })
    }
}

impl Resource {
    fn group(self) -> Result<SecurityGroup, PageError> {
        let Self { guid, name, globally_enabled, rules, relationships } = self;
        let Relationships { running_spaces, staging_spaces } = relationships;
        let guids = |spaces: Spaces| {
            let spaces = spaces.data.into_iter().map(|space| match space.guid {
                none if none.is_empty() => Err(PageError::NoSpaceGuid { guid: guid.clone() }),
                space => Ok(space),
            });
            spaces.collect::<Result<Vec<_>, _>>()
        };
        Ok(SecurityGroup {
            running_spaces: guids(running_spaces)?,
            staging_spaces: guids(staging_spaces)?,
            guid,
            name,
            rules: gocompat::json::to_string(&rules),
            staging_default: globally_enabled.staging,
            running_default: globally_enabled.running,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rules_have_every_key_in_their_order_and_no_other() {
        let body = r#"{
            "pagination": {"total_pages": 1, "next": null},
            "resources": [{
                "guid": "sg-1", "name": "dns", "created_at": "2024-10-24T16:13:44Z",
                "globally_enabled": {"running": true, "staging": false},
                "rules": [
                    {"protocol": "udp", "destination": "0.0.0.0/0", "ports": "53", "extra": 1},
                    {"log": true, "protocol": "icmp", "destination": "10.0.0.0/8", "type": 8, "code": null,
                     "description": "a <b>"}
                ],
                "relationships": {
                    "running_spaces": {"data": [{"guid": "space-1"}, {"guid": "space-2"}]},
                    "staging_spaces": {"data": []}
                }
            }]
        }"#;
        let page = Page::read(body.as_bytes()).unwrap();
        assert!(!page.has_next);
        let [group] = &page.groups[..] else { panic!("{page:?}") };
        assert_eq!(
            group.rules,
            concat!(
                r#"[{"protocol":"udp","destination":"0.0.0.0/0","ports":"53","type":0,"code":0,"description":"","log":false},"#,
                r#"{"protocol":"icmp","destination":"10.0.0.0/8","ports":"","type":8,"code":0,"description":"a \u003cb\u003e","log":true}]"#
            )
        );
        assert!(group.running_default && !group.staging_default);
        assert_eq!(group.running_spaces, ["space-1", "space-2"]);
        assert_eq!(group.staging_spaces, [""; 0]);
    }

    #[test]
    fn the_last_page_has_no_next_however_that_is_said() {
        let has_next = |pagination: &str| {
            let body = format!(r#"{{"pagination":{pagination},"resources":[]}}"#);
            Page::read(body.as_bytes()).unwrap().has_next
        };
        assert!(has_next(r#"{"next":{"href":"https://cc/v3/security_groups?page=2"}}"#));
        for last in ["null", "{}", r#"{"next":null}"#, r#"{"next":{}}"#, r#"{"next":{"href":""}}"#]
        {
            assert!(!has_next(last), "{last}");
        }
    }

    #[test]
    fn a_page_without_a_list_is_the_last_one() {
        for resources in [r#""resources":null,"#, ""] {
            let body = format!(r#"{{{resources}"pagination":{{"next":{{"href":"page=2"}}}}}}"#);
            let page = Page::read(body.as_bytes()).unwrap();
            assert_eq!(page, Page { groups: Vec::new(), has_next: false }, "{body}");
        }
    }

    #[test]
    fn whatever_lacks_its_guid_refuses_the_page() {
        let refusal = |resource: &str| {
            let body = format!(r#"{{"resources":[{{"guid":"ok"}},{resource}]}}"#);
            Page::read(body.as_bytes()).unwrap_err().to_string()
        };
        assert_eq!(refusal("{}"), "security group 1 of the page has no guid");
        assert_eq!(
            refusal(r#"{"guid":"a","relationships":{"staging_spaces":{"data":[{}]}}}"#),
            "security group \"a\" is bound to a space without a guid"
        );
        assert!(refusal(r#"{"guid":7}"#).starts_with("the page is not the JSON"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_page_or_refused(bytes: Vec<u8>, text in "[\\[\\]{}:,\"a-z0-9 ]{0,60}") {
            let _ = Page::read(&bytes);
            let _ = Page::read(text.as_bytes());
        }
    }
}
