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
use policy_store::{Actor, AuditQuery, AuditTrail, StoreError};
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

/// Policies that make a page complete however few its entries are: one request may have changed as
/// many as fit into 10 MiB.
const FULL: usize = 10_000;

/// Entries that are read at a time.
const FEW: u32 = 25;

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
            description = "At most this many entries; 100 if absent. A page may have fewer where they \
                           tell of many policies; `next` says whether there are more.",
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
    let question = Question::of(query.as_deref())?;
    let page = page(&*server.store, &question).await.map_err(ApiError::ReadFailed)?;
    Ok(json(&page))
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

/// What is asked for, and where to go on if there is more.
async fn page(trail: &dyn AuditTrail, question: &Question) -> Result<AuditPage, StoreError> {
    let Question { limit, mut before } = *question;
    let (mut page, mut policies) = (AuditPage::default(), 0);
    loop {
        let found = trail.audit(&AuditQuery { limit: FEW, before }).await?;
        let is_end = found.len() < FEW as usize;
        for entry in found {
            if page.entries.len() >= limit as usize || policies >= FULL {
                page.next = before.unwrap_or(0);
                return Ok(page);
            }
            before = Some(entry.0);
            policies += entry.1.policies.len();
            page.entries.push(body(entry));
        }
        if is_end {
            return Ok(page);
        }
    }
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

    use async_trait::async_trait;
    use policy::{Policy, Protocol, Revision};
    use policy_store::Action;
    use proptest::prelude::*;

    use super::*;

    fn asked(query: &str) -> Result<(u32, Option<u64>), String> {
        let question = Question::of(Some(query)).map_err(|error| error.to_string())?;
        Ok((question.limit, question.before))
    }

    /// A trail whose entries, the newest first, have these ids and so many policies.
    struct Trail(Vec<(u64, usize)>);

    #[async_trait]
    impl AuditTrail for Trail {
        async fn audit(
            &self,
            query: &AuditQuery,
        ) -> Result<Vec<(u64, policy_store::AuditEntry)>, StoreError> {
            let AuditQuery { limit, before } = *query;
            let older = self.0.iter().filter(|(id, _)| before.is_none_or(|before| *id < before));
            Ok(older.take(limit as usize).map(|&(id, policies)| entry(id, policies)).collect())
        }
    }

    fn entry(id: u64, policies: usize) -> (u64, policy_store::AuditEntry) {
        let policy = Policy {
            source: "web".parse().unwrap(),
            destination: "db".parse().unwrap(),
            protocol: Protocol::Tcp,
            ports: "1".parse().unwrap(),
        };
        let entry = policy_store::AuditEntry {
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_729_786_424_120),
            action: Action::Deleted,
            actor: Actor::system("policy-cleaner"),
            revision: Revision(12),
            policies: vec![policy; policies],
        };
        (id, entry)
    }

    /// The ids of each page, read one after the other.
    async fn pages(trail: &Trail, limit: u32) -> Vec<Vec<u64>> {
        let (mut pages, mut before) = (Vec::new(), None);
        loop {
            let page = page(trail, &Question { limit, before }).await.unwrap();
            pages.push(page.entries.iter().map(|entry| entry.id).collect());
            if page.next == 0 {
                return pages;
            }
            before = Some(page.next);
        }
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

    #[tokio::test]
    async fn a_page_tells_the_next_only_if_there_is_one() {
        let trail = Trail(vec![(9, 1), (7, 1), (4, 1), (1, 1)]);
        assert_eq!(pages(&trail, 2).await, [[9, 7], [4, 1]]);
        assert_eq!(pages(&trail, 4).await, [[9, 7, 4, 1]]);
        assert_eq!(pages(&Trail(Vec::new()), 4).await, [[0; 0]]);
    }

    #[tokio::test]
    async fn a_page_ends_early_where_entries_tell_of_many_policies() {
        let trail = Trail(vec![(5, 9_999), (4, 1), (3, 20_000), (2, 0), (1, 10_000)]);
        assert_eq!(pages(&trail, 1000).await, [vec![5, 4], vec![3], vec![2, 1]]);
    }

    #[test]
    fn what_the_server_did_by_itself_came_from_nowhere() {
        let told = body(entry(3, 0));
        assert_eq!(told.time, "2024-10-24T16:13:44.120000Z");
        assert_eq!((told.subject.as_str(), told.address), ("policy-cleaner", None));
        assert_eq!((told.action.as_str(), told.request_id.as_str()), ("policies-deleted", ""));
    }

    proptest! {
        #[test]
        fn walking_the_pages_meets_each_entry_once(
            ids in prop::collection::btree_set(1u64..1000, 0..120), limit in 1u32..60,
        ) {
            let ids: Vec<_> = ids.into_iter().rev().collect();
            let trail = Trail(ids.iter().map(|&id| (id, 0)).collect());
            let pages = futures::executor::block_on(pages(&trail, limit));
            prop_assert!(pages.iter().all(|page| page.len() <= limit as usize));
            prop_assert_eq!(pages.concat(), ids);
        }

        #[test]
        fn any_query_is_a_question_or_refused(query in "(limit|before)=[0-9-]{0,21}|.*") {
            if let Ok((limit, before)) = asked(&query) {
                prop_assert!((1..=1000).contains(&limit) && before != Some(0));
            }
        }
    }
}
