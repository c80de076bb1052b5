//! Who changed what, for administrators.

use std::{num::NonZeroU8, sync::Arc};

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use policy::wire::{
    audit::{AuditEntry, AuditPage},
    v1,
};
use policy_store::{Actor, AuditQuery};
use time::{
    OffsetDateTime,
    format_description::well_known::{
        Iso8601,
        iso8601::{Config, EncodedConfig, TimePrecision},
    },
};

use crate::{
    api::{error::ApiError, json, openapi::refusals, query, version::Version},
    server::Server,
};

/// Entries of a page nobody chose the length of.
const USUAL: u32 = 100;

/// Entries of the longest page.
const MOST: u32 = 1000;

/// RFC 3339, always with microseconds.
const TIME: EncodedConfig = Config::DEFAULT
    .set_time_precision(TimePrecision::Second { decimal_digits: NonZeroU8::new(6) })
    .encode();

/// Ask who changed what.
///
/// One entry for each request that created or deleted something, the newest first. What a request
/// named and what was so already is in no entry.
#[utoipa::path(
    get,
    path = "/networking/{version}/external/audit",
    operation_id = "listAuditEntries",
    tag = "insight",
    params(
        ("version" = Version, Path),
        (
            "limit" = Option<u32>, Query, minimum = 1, maximum = 1000,
            description = "At most this many entries; 100 if absent.",
        ),
        (
            "before" = Option<u64>, Query, minimum = 1,
            description = "Only entries older than the one with this `id`: `next` of the page before.",
        ),
    ),
    responses(
        (
            status = 200,
            description = "A page of the audit trail.",
            body = AuditPage,
            example = json!({
                "next": 6,
                "entries": [{
                    "id": 7,
                    "time": "2024-10-24T16:13:44.123456Z",
                    "action": "policies-created",
                    "subject": "alice",
                    "address": "10.0.0.7",
                    "request_id": "0f3d7c1c-5f43-4c21-9c39-6a25c8d2cf1b",
                    "revision": 42,
                    "policies": [{
                        "source": {"id": "38f08df0-19df-4439-b4e9-61096d4301ea"},
                        "destination": {
                            "id": "308e7ef1-63f1-4a6c-978c-2e527cbb1c36",
                            "protocol": "tcp",
                            "ports": {"start": 8080, "end": 8090},
                        },
                    }],
                }],
            }),
        ),
        refusals::OfAudit,
    ),
    security(("token" = ["network.admin"])),
)]
pub(crate) async fn index(
    State(server): State<Arc<Server>>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let Question { limit, before } = Question::of(query.as_deref())?;
    // One more tells whether there is a next page.
    let query = AuditQuery { limit: limit + 1, before };
    let found = server.store.audit(&query).await.map_err(ApiError::ReadFailed)?;
    Ok(json(&page(found, limit)))
}

/// What an administrator asks for.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    limit: u32,
    before: Option<u64>,
}

impl Question {
    fn of(query: Option<&str>) -> Result<Self, ApiError> {
        let invalid = |name, expected| ApiError::QueryInvalid { name, expected };
        let limit = match query::first(query, "limit") {
            None => Some(USUAL),
            Some(text) => text.parse().ok().filter(|limit| (1..=MOST).contains(limit)),
        };
        let before = match query::first(query, "before") {
            None => Some(None),
            Some(text) => text.parse().ok().filter(|id| *id > 0).map(Some),
        };
        Ok(Self {
            limit: limit.ok_or(invalid("limit", "in range 1-1000"))?,
            before: before.ok_or(invalid("before", "the id of an entry"))?,
        })
    }
}

/// The first `limit` of the entries found, and where to go on if there are more.
fn page(mut found: Vec<(u64, policy_store::AuditEntry)>, limit: u32) -> AuditPage {
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| more).map_or(0, |(id, _)| *id);
    AuditPage { next, entries: found.into_iter().map(body).collect() }
}

fn body((id, entry): (u64, policy_store::AuditEntry)) -> AuditEntry {
    let policy_store::AuditEntry { at, action, actor, revision, policies } = entry;
    let Actor { subject, address, request } = actor;
    let time = OffsetDateTime::from(at).format(&Iso8601::<TIME>);
    AuditEntry {
        id,
        time: time.expect("the years of our clocks have four digits"),
        action: action.as_str().to_owned(),
        subject,
        address: address.map(|address| address.to_string()),
        request_id: request,
        revision: revision.0,
        policies: policies.iter().map(v1::PolicyBody::of).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use policy::Revision;
    use policy_store::Action;
    use proptest::prelude::*;

    use super::*;

    fn asked(query: &str) -> Result<(u32, Option<u64>), String> {
        let question = Question::of(Some(query)).map_err(|error| error.to_string())?;
        Ok((question.limit, question.before))
    }

    fn entry(id: u64) -> (u64, policy_store::AuditEntry) {
        let entry = policy_store::AuditEntry {
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_729_786_424_120),
            action: Action::Deleted,
            actor: Actor::system("policy-cleaner"),
            revision: Revision(12),
            policies: Vec::new(),
        };
        (id, entry)
    }

    #[test]
    fn a_page_has_a_usual_and_a_longest_length() {
        assert_eq!(asked(""), Ok((100, None)));
        assert_eq!(asked("limit=7&before=12"), Ok((7, Some(12))));
        assert_eq!(asked("limit=1000"), Ok((1000, None)));
        for bad in ["limit=", "limit=-1", "limit=x", "limit=0", "limit=1001"] {
            let text = "invalid value for 'limit' parameter, must be in range 1-1000";
            assert_eq!(asked(bad), Err(text.to_owned()), "{bad}");
        }
        for bad in ["before=", "before=-1", "before=0", "before=99999999999999999999"] {
            let text = "invalid value for 'before' parameter, must be the id of an entry";
            assert_eq!(asked(bad), Err(text.to_owned()), "{bad}");
        }
    }

    #[test]
    fn a_page_tells_the_next_only_if_there_is_one() {
        let ids = |page: &AuditPage| page.entries.iter().map(|entry| entry.id).collect::<Vec<_>>();
        let first = page(vec![entry(9), entry(7), entry(4)], 2);
        assert_eq!((first.next, ids(&first)), (7, vec![9, 7]));
        let last = page(vec![entry(4), entry(1)], 2);
        assert_eq!((last.next, ids(&last)), (0, vec![4, 1]));
        assert_eq!(page(Vec::new(), 2), AuditPage::default());
    }

    #[test]
    fn what_the_server_did_by_itself_came_from_nowhere() {
        let told = body(entry(3));
        assert_eq!(told.time, "2024-10-24T16:13:44.120000Z");
        assert_eq!((told.subject.as_str(), told.address), ("policy-cleaner", None));
        assert_eq!((told.action.as_str(), told.request_id.as_str()), ("policies-deleted", ""));
    }

    proptest! {
        #[test]
        fn any_query_is_a_question_or_refused(query in "(limit|before)=[0-9-]{0,21}|.*") {
            if let Ok((limit, before)) = asked(&query) {
                prop_assert!((1..=1000).contains(&limit) && before != Some(0));
            }
        }
    }
}
