use std::{collections::BTreeSet, time::Duration};

use policy::{SecurityGroup, Version, wire::security_group::SecurityGroupBody};
use reqwest::Url;
use serde::Deserialize;

use super::{
    Client, ClientError,
    error::Nonsense,
    exchange::{Held, Poll, Reply},
    receipt::ReceiptWords,
};

const PATH: &str = "/networking/v1/internal/security_groups";

/// How many groups cells have always asked for at once. Servers that do not know the word give all.
const PER_PAGE: &str = "5000";

/// How often a list is read anew that changes between two of its pages.
const ATTEMPTS: u32 = 3;

/// Which security groups a cell needs, and what it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupsQuestion {
    /// The spaces of the cell's containers. Groups that hold everywhere are told as well.
    pub spaces: BTreeSet<String>,
    /// The version of the groups of exactly these spaces that the cell has, if any.
    pub known: Option<Version>,
    /// How long the server may hold the question while nothing changes; it clamps this to 1–60 s.
    pub wait: Option<Duration>,
    /// What makes the question a receipt for the known version, if it is to be one.
    pub receipt: Option<ReceiptWords>,
}

/// What a question brought, and what came with it.
#[derive(Debug)]
pub struct GroupsTold {
    /// What was answered.
    pub answer: GroupsAnswer,
    /// How long the server says it would have held the question at most; `None` from one that does not
    /// hold questions.
    pub wait: Option<Duration>,
}

/// The security groups of some spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupsAnswer {
    /// What is known is still all there is to know.
    NotModified(Version),
    /// All of them.
    Groups {
        /// In the server's order.
        groups: Vec<SecurityGroup>,
        /// What to say next time; `None` from an old server, which knows neither versions nor holds.
        version: Option<Version>,
    },
}

/// A page. A missing list is not an empty one: a server that has lost its words must not look like one
/// that has no groups.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Page {
    next: u64,
    security_groups: Option<Vec<SecurityGroupBody>>,
}

impl Client {
    /// The security groups that hold for containers of some spaces (spec/policy-server.md §5.4),
    /// possibly after a while. Their pages are of one version, where the server has versions. A server that
    /// has none because nobody has told it of any yet answers [`ClientError::GroupsUnknown`].
    pub async fn security_groups(
        &self,
        question: &GroupsQuestion,
    ) -> Result<GroupsTold, ClientError> {
        self.addresses.ask(PATH, |url| self.groups_at(url, question)).await
    }

    async fn groups_at(
        &self,
        url: Url,
        question: &GroupsQuestion,
    ) -> Result<GroupsTold, ClientError> {
        let GroupsQuestion { spaces, known, wait, receipt } = question;
        let (known, receipt) = (known.as_ref(), receipt.as_ref());
        let poll = Poll { known, wait: *wait, receipt, ..Poll::default() };
        let reply = self.ask(page(&url, spaces, 0), poll).await?;
        if reply.groups_unknown {
            return Err(ClientError::GroupsUnknown { request: format!("GET {url}") });
        }
        let Reply { held, wait, .. } = reply;
        if let Held::NotModified(version) = held {
            return Ok(GroupsTold { answer: GroupsAnswer::NotModified(version), wait });
        }
        let mut held = held;
        for _ in 0..ATTEMPTS {
            if let Some(first) = part(held)? {
                let version = first.version.clone();
                if let Some(groups) = self.whole(&url, spaces, first).await? {
                    return Ok(GroupsTold {
                        answer: GroupsAnswer::Groups { groups, version },
                        wait,
                    });
                }
            }
            held = self.ask(page(&url, spaces, 0), Poll::default()).await?.held;
        }
        Err(ClientError::Nonsense { request: format!("GET {url}"), source: Nonsense::Unsteady })
    }

    /// The groups of the first page and of all that follow; `None` if the list changed on the way.
    async fn whole(
        &self,
        url: &Url,
        spaces: &BTreeSet<String>,
        first: Part,
    ) -> Result<Option<Vec<SecurityGroup>>, ClientError> {
        let Part { mut next, mut groups, version } = first;
        while next != 0 {
            let held = self.ask(page(url, spaces, next), Poll::default()).await?.held;
            match part(held)? {
                Some(part) if part.version == version && (part.next == 0 || part.next > next) => {
                    next = part.next;
                    groups.extend(part.groups);
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(groups))
    }
}

/// A page, understood.
struct Part {
    next: u64,
    groups: Vec<SecurityGroup>,
    version: Option<Version>,
}

/// `None` for what is no page.
fn part(held: Held) -> Result<Option<Part>, ClientError> {
    let Held::Fresh { body, version } = held else { return Ok(None) };
    let (next, groups) = body.understand(|Page { next, security_groups }| {
        let groups = security_groups.ok_or(Nonsense::Missing("security_groups"))?;
        Ok::<_, Nonsense>((next, groups.into_iter().map(SecurityGroup::from).collect()))
    })?;
    Ok(Some(Part { next, groups, version }))
}

fn page(url: &Url, spaces: &BTreeSet<String>, from: u64) -> Url {
    let mut url = url.clone();
    let list = spaces.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    let mut query = url.query_pairs_mut();
    query.append_pair("per_page", PER_PAGE);
    if !spaces.is_empty() {
        query.append_pair("space_guids", &list);
    }
    if from != 0 {
        query.append_pair("from", &from.to_string());
    }
    drop(query);
    url
}
