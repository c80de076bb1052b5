use policy::wire::audit::{AuditEntry, AuditPage};
use serde::Deserialize;

use super::{Client, ClientError, error::Nonsense};

/// The answer's shape; a missing list is not an empty one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Page {
    next: u64,
    entries: Option<Vec<AuditEntry>>,
}

impl Client {
    /// At most `limit` entries of the audit trail, the newest first, or the newest of those older
    /// than `before`. Needs `network.admin`.
    pub fn audit(&self, limit: u32, before: Option<u64>) -> Result<AuditPage, ClientError> {
        let before = before.map(|id| ("before", id.to_string()));
        let query: Vec<_> = [("limit", limit.to_string())].into_iter().chain(before).collect();
        self.get("/audit", &query)?.understand(|Page { next, entries }| {
            let entries = entries.ok_or(Nonsense::Missing("entries"))?;
            Ok(AuditPage { next, entries })
        })
    }
}
