use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use policy::TagLength;
use policy_store::{LeasePool, PolicyStore, StoreError};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    api::error::ApiError,
    apps::Apps,
    auth::Verifier,
    cleaner::Cleaner,
    hold::{Outcome, Poll, hold},
    metrics::Metrics,
    receipts::Receipts,
    snapshot::{Snapshot, feed::Feed},
};

/// How long cells wait to be told the latest before they are told what was known last.
const BRIEFLY: Duration = Duration::from_secs(1);

/// What handlers share.
pub(crate) struct Server {
    pub store: Arc<dyn PolicyStore>,
    pub feed: Feed,
    pub receipts: Receipts,
    pub verifier: Arc<dyn Verifier>,
    /// Whether callers without a scope may change policies of their own apps.
    pub self_service: bool,
    /// What callers may touch who are no administrators; without it, nothing.
    pub apps: Option<Apps>,
    /// Removes policies of apps that are gone, where somebody knows which are.
    pub cleaner: Option<Cleaner>,
    pub tag_length: TagLength,
    pub lease_pool: LeasePool,
    pub metrics: Metrics,
    pub started: Instant,
    pub shutdown: CancellationToken,
}

impl Server {
    /// Answers `poll` now, or when there is something to answer.
    pub(crate) async fn hold(&self, poll: &Poll) -> Outcome {
        hold(poll, &self.feed, &self.metrics, &self.shutdown).await
    }

    /// A snapshot that holds everything the database held when it was asked for, whichever server
    /// wrote it. Callers read what they wrote elsewhere, and the database tells one revision instead
    /// of every policy.
    pub(crate) async fn current(&self) -> Result<Arc<Snapshot>, ApiError> {
        let version = self.store.version().await.map_err(ApiError::ReadFailed)?;
        self.feed.reaches(&version).await.map_err(ApiError::Behind)?;
        Ok(self.feed.snapshot())
    }

    /// What a caller is told whose change could not be made. Where no tag is left for it, operators are told
    /// which cells keep those that were given back from becoming free.
    pub(crate) async fn not_created(&self, error: StoreError) -> ApiError {
        if matches!(error, StoreError::NoTagLeft) {
            let cells = self.receipts.of_all_servers(&*self.store).await;
            let cells = cells.furthest_behind(&self.feed.snapshot());
            if !cells.is_empty() {
                tracing::warn!(
                    cells = cells.join(", "),
                    "No tag is left. Those that were given back become free when every cell has confirmed that \
                     it knows; these are the furthest behind."
                );
            }
        }
        ApiError::CreateFailed(error)
    }

    /// Waits until the snapshot is current. If the database is in trouble, what was known last must do.
    pub(crate) async fn catch_up(&self) {
        let _ = timeout(BRIEFLY, self.current()).await;
    }
}
