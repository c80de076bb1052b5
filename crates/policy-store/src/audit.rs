use std::time::SystemTime;

use async_trait::async_trait;
use policy::{Policy, Revision};

use crate::{Actor, StoreError};

/// What was done to policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// They were created.
    Created,
    /// They were deleted.
    Deleted,
}

/// Who changed what, when, from where. Written in the transaction of the change, so that there is no
/// change without its entry; a request that changed nothing leaves none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When, to the microsecond.
    pub at: SystemTime,
    /// What was done.
    pub action: Action,
    /// Who did it.
    pub actor: Actor,
    /// The revision of the change.
    pub revision: Revision,
    /// The policies that came or went; those asked for that changed nothing are not among them.
    pub policies: Vec<Policy>,
}

/// Which entries are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditQuery {
    /// At most this many.
    pub limit: u32,
    /// Only entries older than the one with this number.
    pub before: Option<u64>,
}

/// The append-only record of changes.
#[async_trait]
pub trait AuditTrail: Send + Sync {
    /// The newest entries first, each with its number, which only ever grows.
    async fn audit(&self, query: &AuditQuery) -> Result<Vec<(u64, AuditEntry)>, StoreError>;
}

impl Action {
    /// The word it is stored as.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "policies-created",
            Self::Deleted => "policies-deleted",
        }
    }

    pub(crate) fn of_stored(word: &str) -> Result<Self, StoreError> {
        [Self::Created, Self::Deleted]
            .into_iter()
            .find(|action| action.as_str() == word)
            .ok_or_else(|| StoreError::unreadable("action", word))
    }
}
