use std::{sync::Arc, time::Instant};

use policy::TagLength;
use policy_store::{LeasePool, PolicyStore};
use tokio_util::sync::CancellationToken;

use crate::{auth::Verifier, metrics::Metrics, receipts::Receipts, snapshot::feed::Feed};

/// What handlers share.
pub(crate) struct Server {
    pub store: Arc<dyn PolicyStore>,
    pub feed: Feed,
    pub receipts: Receipts,
    pub verifier: Arc<dyn Verifier>,
    pub tag_length: TagLength,
    pub lease_pool: LeasePool,
    pub metrics: Metrics,
    pub started: Instant,
    pub shutdown: CancellationToken,
}
