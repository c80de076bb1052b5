//! Security groups for cells (spec/policy-server.md §5.4), answered from the snapshot.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    extract::{RawQuery, State},
    http::HeaderMap,
    response::Response,
};
use policy::wire::security_group::SecurityGroupList;
use policy_store::NumberedGroup;

use crate::{
    api::{conditional, error::ApiError, json, query},
    hold::{Outcome, Poll},
    metrics::Operation,
    receipts::Turn,
    server::Server,
    snapshot::Topic,
};

/// What a cell asks for.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    /// Groups bound to these spaces, beside those that hold everywhere.
    spaces: Arc<BTreeSet<String>>,
    /// Only groups with this number or a higher one.
    from: u64,
    /// At most this many; `None` means all.
    limit: Option<usize>,
}

/// A page of the groups that concern some spaces, possibly after a while. What the cell says it has is its
/// receipt.
pub(crate) async fn index(
    State(server): State<Arc<Server>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let question = Question::of(query.as_deref())?;
    let (known, wait) = (conditional::known(&headers), conditional::wait(&headers));
    let cell: Option<Box<str>> = conditional::cell(&headers).map(Box::from);
    let word = cell
        .is_some()
        .then(|| conditional::groups_word(&headers, &question.spaces, known.as_ref()));
    let (agent, number) = (conditional::agent(&headers), conditional::question(&headers));
    let turn = Turn { agent, question: number };
    // They keep whole buffers of their connection.
    drop(headers);
    if known.is_none() {
        server.catch_up().await;
    }
    let said = cell.as_deref().zip(word);
    let hearing = said.map(|(cell, word)| server.receipts.hear_of_groups(cell, turn, word));
    // Nobody waits for one that was overtaken.
    let wait = wait.filter(|_| hearing.as_ref().is_none_or(|hearing| !hearing.is_overtaken));
    let poll = Poll { topic: Topic::SecurityGroups(question.spaces.clone()), known, wait };
    Ok(match server.hold(&poll).await {
        Outcome::Unchanged(_, version) => {
            conditional::stamped(conditional::not_modified(), &version, wait)
        }
        Outcome::Fresh(snapshot, version) => {
            // A list for one who knows nothing is as of now. By an older version, right as it were, it
            // would look older than what was told before. Pages are of the version they have in common.
            let is_new = poll.known.is_none() && question.is_about_all();
            let version = if is_new { snapshot.version().clone() } else { version };
            let groups = snapshot.security_groups();
            let page = server.metrics.lookup(Operation::SecurityGroupsBySpaceGuids, || {
                question.page(groups.unwrap_or_default())
            });
            let page = json(&page);
            // Agents of cf-networking take it for a list all the same, as they do of their own server.
            let page = if groups.is_some() { page } else { conditional::of_unknown_groups(page) };
            conditional::stamped(page, &version, wait)
        }
    })
}

/// A number that is another one after each change of the security groups: the revision of the last.
/// Ours; the existing system has no such probe.
pub(crate) async fn last_updated(State(server): State<Arc<Server>>) -> String {
    server.feed.snapshot().security_groups_version().revision.to_string()
}

impl Question {
    fn of(query: Option<&str>) -> Result<Self, ApiError> {
        let spaces = query::first(query, "space_guids");
        let spaces = spaces.iter().flat_map(|list| list.split(','));
        let spaces = Arc::new(spaces.map(str::to_owned).collect());
        let from = number(query, "from")?;
        let limit = number(query, "limit")?;
        Ok(Self {
            spaces,
            from: from.try_into().unwrap_or(0),
            limit: usize::try_from(limit).ok().filter(|limit| *limit > 0),
        })
    }

    /// Whether one page is all there is.
    fn is_about_all(&self) -> bool {
        self.from == 0 && self.limit.is_none()
    }

    fn page(&self, groups: &[NumberedGroup]) -> SecurityGroupList {
        let mut concerned =
            groups.iter().filter(|group| group.id >= self.from && self.concerns(group));
        let page: Vec<_> = concerned.by_ref().take(self.limit.unwrap_or(usize::MAX)).collect();
        SecurityGroupList {
            next: concerned.next().map_or(0, |group| group.id),
            security_groups: page.into_iter().map(|row| row.group.clone().into()).collect(),
        }
    }

    fn concerns(&self, NumberedGroup { id: _, group }: &NumberedGroup) -> bool {
        let bound = |spaces: &[String]| spaces.iter().any(|space| self.spaces.contains(space));
        group.staging_default
            || group.running_default
            || bound(&group.staging_spaces)
            || bound(&group.running_spaces)
    }
}

/// A parameter that is a number, 0 where it is absent or empty; negative ones are let through, as
/// they mean nothing worse than 0.
fn number(query: Option<&str>, name: &'static str) -> Result<i64, ApiError> {
    match query::first(query, name) {
        None => Ok(0),
        Some(text) if text.is_empty() => Ok(0),
        Some(text) => text.parse().map_err(|_| ApiError::ParameterInvalid(name)),
    }
}

#[cfg(test)]
mod tests {
    use policy::SecurityGroup;
    use proptest::prelude::*;

    use super::*;

    fn group(id: u64, everywhere: bool, spaces: &[&str]) -> NumberedGroup {
        let group = SecurityGroup {
            guid: format!("sg-{id}"),
            name: format!("group {id}"),
            rules: "[]".to_owned(),
            staging_default: false,
            running_default: everywhere,
            staging_spaces: Vec::new(),
            running_spaces: spaces.iter().map(|&space| space.to_owned()).collect(),
        };
        NumberedGroup { id, group }
    }

    fn page(query: &str) -> (u64, Vec<String>) {
        let groups = [
            group(1, true, &[]),
            group(2, false, &["a"]),
            group(4, false, &["b"]),
            group(7, false, &["a", "b"]),
        ];
        let page = Question::of(Some(query)).unwrap().page(&groups);
        (page.next, page.security_groups.into_iter().map(|group| group.guid).collect())
    }

    #[test]
    fn spaces_select_beside_what_holds_everywhere() {
        let all = |query| page(query).1;
        assert_eq!(all(""), ["sg-1"]);
        assert_eq!(all("space_guids="), ["sg-1"]);
        assert_eq!(all("space_guids=a"), ["sg-1", "sg-2", "sg-7"]);
        assert_eq!(all("space_guids=b,a&per_page=1"), ["sg-1", "sg-2", "sg-4", "sg-7"]);
        assert_eq!(all("space_guids=a&from=2"), ["sg-2", "sg-7"]);
    }

    #[test]
    fn pages_say_where_the_next_begins() {
        assert_eq!(page("space_guids=a&limit=2"), (7, vec!["sg-1".into(), "sg-2".into()]));
        assert_eq!(page("space_guids=a&limit=2&from=7"), (0, vec!["sg-7".into()]));
        for all in ["space_guids=a&limit=0", "space_guids=a&limit=-3", "space_guids=a&limit=3"] {
            assert_eq!((page(all).0, page(all).1.len()), (0, 3), "{all}");
        }
        for bad in ["from=x", "limit=1.5", "from=99999999999999999999"] {
            assert!(Question::of(Some(bad)).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn walking_the_pages_meets_each_group_once(
            bound in prop::collection::vec(any::<bool>(), 0..20), limit in 1usize..6,
        ) {
            let groups: Vec<_> = (1u64..)
                .zip(&bound)
                .map(|(id, bound)| group(id * 3, false, if *bound { &["a"] } else { &["b"] }))
                .collect();
            let (mut from, mut met) = (0, Vec::new());
            loop {
                let spaces = BTreeSet::from(["a".to_owned()]);
                let page = Question { spaces: spaces.into(), from, limit: Some(limit) }.page(&groups);
                prop_assert!(page.security_groups.len() <= limit);
                met.extend(page.security_groups.into_iter().map(|group| group.guid));
                from = page.next;
                if from == 0 {
                    break;
                }
            }
            let all: Vec<_> = groups.iter().zip(&bound).filter(|(_, bound)| **bound)
                .map(|(group, _)| group.group.guid.clone()).collect();
            prop_assert_eq!(met, all);
        }
    }
}
