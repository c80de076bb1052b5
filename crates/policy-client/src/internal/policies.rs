use std::{collections::BTreeSet, time::Duration};

use policy::{
    AppGuid, TaggedPolicy, Version,
    wire::{
        delta::Delta,
        plain::Reader,
        v1::{PolicyBody, PolicyList},
    },
};
use reqwest::Url;
use serde::Deserialize;

use super::{
    Client, ClientError,
    error::Nonsense,
    exchange::{Held, Poll, Reply},
    receipt::ReceiptWords,
};

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
    /// The version the kernel enforces of all of these apps' policies, if any. The server takes it
    /// for a receipt (design §2.3), so it must not be claimed before it is true.
    pub known: Option<Version>,
    /// How long the server may hold the question while nothing changes; it clamps this to 1–60 s.
    pub wait: Option<Duration>,
    /// What else the receipt says.
    pub receipt: ReceiptWords,
    /// Whether only the changes to what is known may be told, by a server that can. It takes the
    /// policies of `known`, of exactly these apps, to use them.
    pub changes: bool,
}

/// An answer, and what came with it.
#[derive(Debug)]
pub struct Told {
    /// What was answered.
    pub answer: Answer,
    /// How long the server says it would have held the question at most. An old server, and many a
    /// proxy, say nothing of it.
    pub wait: Option<Duration>,
    /// How long the server would have the next question put off at most, so that others are told first
    /// what many are told at once.
    pub rest: Duration,
    /// Why the server takes what the question says for no receipt, if it does not: another agent says that
    /// it is this cell, too.
    pub refused: Option<String>,
    /// How long the answer's body was.
    pub bytes: usize,
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
    /// What became of the policies of `known`.
    Changes {
        /// In short.
        delta: Delta,
        /// What it leads to.
        version: Version,
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
        Ok(self.told(question).await?.answer)
    }

    /// Like [`policies`](Self::policies), with what came besides.
    pub async fn told(&self, question: &Question) -> Result<Told, ClientError> {
        let Question { apps, known, wait, receipt, changes } = question;
        let ids = apps.iter().map(AppGuid::as_str).collect::<Vec<_>>().join(",");
        let everything = ids.len() > LONGEST_QUERY;
        // Of everything there are no changes: servers remember them by app.
        let changes = *changes && !everything;
        let ask = |mut url: Url| {
            if !everything {
                url.query_pairs_mut().append_pair("id", &ids);
            }
            let known = known.as_ref();
            self.ask(url, Poll { known, wait: *wait, receipt: Some(receipt), changes })
        };
        let Reply { held, wait, rest, refused, groups_unknown: _ } =
            self.addresses.ask(PATH, ask).await?;
        let (answer, bytes) = match held {
            Held::NotModified(version) => (Answer::NotModified(version), 0),
            Held::Fresh { body, version } => {
                let bytes = body.len();
                let mut policies = match Reader::default().list(body.bytes()) {
                    Some(policies) => policies,
                    None => body.understand(understand)?,
                };
                if everything {
                    policies.retain(|policy| concerns(policy, apps));
                }
                (Answer::Policies { policies, version }, bytes)
            }
            Held::Changes { body, version } => {
                let bytes = body.len();
                (Answer::Changes { delta: body.into_delta()?, version }, bytes)
            }
        };
        Ok(Told { answer, wait, rest, refused, bytes })
    }
}

/// Whether one of `apps` is at either end.
pub(super) fn concerns(tagged: &TaggedPolicy, apps: &BTreeSet<AppGuid>) -> bool {
    apps.contains(&tagged.policy.source) || apps.contains(&tagged.policy.destination)
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
