use std::{collections::BTreeSet, time::Duration};

use policy::{
    AppGuid, TaggedPolicy, Version,
    wire::v1::{PolicyBody, PolicyList},
};
use serde::Deserialize;

use super::{Client, ClientError, error::Nonsense, exchange::Held};

const PATH: &str = "/networking/v1/internal/policies";

/// HTTP libraries refuse addresses of 64 KiB; a cell with more apps than fit asks for everything and
/// keeps what it wanted.
const LONGEST_QUERY: usize = 48 << 10;

/// Which policies a cell needs, and what it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// The apps of the cell: policies with one of them at either end are wanted. Of no apps there are
    /// no policies, but asking is still a receipt.
    pub apps: BTreeSet<AppGuid>,
    /// The version the kernel enforces of exactly these apps' policies, if any. The server takes it
    /// for a receipt (design §2.3), so it must not be claimed before it is true.
    pub known: Option<Version>,
    /// How long the server may hold the question while nothing changes; it clamps this to 1–60 s.
    pub wait: Option<Duration>,
}

/// What a question brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// What is known is still all there is to know.
    ///
    /// A server that does not hold questions gives this answer at once, and as often as it is asked:
    /// a caller that gets it sooner than it asked for must pause.
    NotModified(Version),
    /// All policies that concern the apps.
    Policies {
        /// Complete, in the server's order.
        policies: Vec<TaggedPolicy>,
        /// What to say next time; `None` from an old server, which knows neither versions nor holds.
        version: Option<Version>,
    },
}

/// The answer's shape. Decoded here and not as a [`PolicyList`], in which a missing list is empty: a
/// server that has lost its words must not look like one that forbids everything.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Listed {
    policies: Option<Vec<PolicyBody>>,
}

impl Client {
    /// The policies that concern some apps (spec/policy-server.md §5.1), possibly after a while.
    pub async fn policies(&self, question: &Question) -> Result<Answer, ClientError> {
        let Question { apps, known, wait } = question;
        let ids = apps.iter().map(AppGuid::as_str).collect::<Vec<_>>().join(",");
        let everything = ids.len() > LONGEST_QUERY;
        let mut url = self.endpoint(PATH);
        if !everything {
            url.query_pairs_mut().append_pair("id", &ids);
        }
        match self.ask(url, known.as_ref(), *wait, true).await? {
            Held::NotModified(version) => Ok(Answer::NotModified(version)),
            Held::Fresh { body, version } => {
                let mut policies = body.understand(understand)?;
                if everything {
                    policies.retain(|TaggedPolicy { policy, .. }| {
                        apps.contains(&policy.source) || apps.contains(&policy.destination)
                    });
                }
                Ok(Answer::Policies { policies, version })
            }
        }
    }
}

fn understand(listed: Listed) -> Result<Vec<TaggedPolicy>, Nonsense> {
    let Listed { policies } = listed;
    let policies = policies.ok_or(Nonsense::Missing("policies"))?;
    let list = PolicyList { total_policies: policies.len(), policies };
    Ok(list.into_tagged()?)
}

/// What the client makes of an answer's bytes, for tests that need no socket.
#[cfg(test)]
pub(super) fn read(bytes: &[u8]) -> Result<Vec<TaggedPolicy>, ClientError> {
    super::exchange::Body::from_bytes(bytes).understand(understand)
}
