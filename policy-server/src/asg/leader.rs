//! Who may sync: one process at a time.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use policy_store::{PolicyStore, StoreError};
use thiserror::Error;

/// The name all syncers compete under (spec/policy-server.md §7).
pub(super) const NAME: &str = "policy-server-asg-syncer";

/// A lead over the other syncers, which lapses by itself when it is not renewed.
#[async_trait]
pub trait Leadership: Send + Sync {
    /// Takes or keeps the lead for [`lifetime`](Self::lifetime); `false` if another has it.
    async fn hold(&self) -> Result<bool, LeadError>;

    /// Lets another lead at once.
    async fn release(&self) -> Result<(), LeadError>;

    /// How long the lead lasts after it was taken or kept.
    fn lifetime(&self) -> Duration;
}

/// Nobody can say who leads.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each text says what the variant means")]
pub enum LeadError {
    #[error("asking the database who leads")]
    Database(#[source] StoreError),
    #[error("asking Locket for the lock")]
    Locket(#[source] tonic::Status),
}

/// The lead by a row in the database, for those who have no Locket.
pub struct DatabaseLead {
    store: Arc<dyn PolicyStore>,
    owner: String,
    lifetime: Duration,
}

impl DatabaseLead {
    /// The lead `owner`, a name that no other process has, would have for `lifetime` at a time.
    pub fn new(store: Arc<dyn PolicyStore>, owner: String, lifetime: Duration) -> Self {
        Self { store, owner, lifetime }
    }
}

#[async_trait]
impl Leadership for DatabaseLead {
    async fn hold(&self) -> Result<bool, LeadError> {
        self.store.lead(NAME, &self.owner, self.lifetime).await.map_err(LeadError::Database)
    }

    async fn release(&self) -> Result<(), LeadError> {
        self.store.resign(NAME, &self.owner).await.map_err(LeadError::Database)
    }

    fn lifetime(&self) -> Duration {
        self.lifetime
    }
}
