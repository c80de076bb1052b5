use std::collections::BTreeSet;

use policy::{
    AppGuid, Policy, Version,
    wire::v1::{PolicyBody, PolicyList},
};
use serde::Deserialize;

use super::{Client, ClientError, error::Nonsense};

/// Which policies to list. Of an empty set there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Filter {
    /// All the caller may see.
    #[default]
    All,
    /// Those with one of these apps at either end.
    Concerning(BTreeSet<AppGuid>),
    /// Those from one of these apps to one of those; `None` means from, or to, any.
    Between {
        /// Who may send.
        sources: Option<BTreeSet<AppGuid>>,
        /// Who is reached.
        destinations: Option<BTreeSet<AppGuid>>,
    },
}

/// The answer's shape; a missing list is not an empty one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Listed {
    policies: Option<Vec<PolicyBody>>,
}

impl Client {
    /// Creates all or none; one that exists is fine. The version is what a cell must enforce for the
    /// change to be in force; `None` from an old server.
    pub fn create(&self, policies: &[Policy]) -> Result<Option<Version>, ClientError> {
        self.post("/policies", &PolicyList::of(policies))?.version()
    }

    /// Deletes all of these; one that does not exist is fine. The version is as for
    /// [`Client::create`].
    pub fn delete(&self, policies: &[Policy]) -> Result<Option<Version>, ClientError> {
        self.post("/policies/delete", &PolicyList::of(policies))?.version()
    }

    /// The policies, in an order that does not change from call to call.
    pub fn list(&self, filter: &Filter) -> Result<Vec<Policy>, ClientError> {
        let mut policies = self.get("/policies", &filter.query())?.understand(understand)?;
        policies.sort();
        Ok(policies)
    }
}

impl Filter {
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::All => vec![],
            Self::Concerning(apps) => vec![("id", ids(apps))],
            Self::Between { sources, destinations } => {
                let pair = |name, apps: &Option<_>| apps.as_ref().map(|apps| (name, ids(apps)));
                let pairs = [pair("source_id", sources), pair("dest_id", destinations)];
                pairs.into_iter().flatten().collect()
            }
        }
    }
}

pub(super) fn ids(apps: &BTreeSet<AppGuid>) -> String {
    apps.iter().map(AppGuid::as_str).collect::<Vec<_>>().join(",")
}

fn understand(listed: Listed) -> Result<Vec<Policy>, Nonsense> {
    let Listed { policies } = listed;
    let policies = policies.ok_or(Nonsense::Missing("policies"))?;
    if policies.is_empty() {
        // Which is no list a caller may send, but a perfectly good answer.
        return Ok(vec![]);
    }
    PolicyList { total_policies: policies.len(), policies }.validate().map_err(Nonsense::Policy)
}

/// What the client makes of an answer's bytes, for tests that need no socket.
#[cfg(test)]
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Policy>, ClientError> {
    super::call::Answer::from_bytes(bytes).understand(understand)
}
