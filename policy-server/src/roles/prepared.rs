use std::{sync::Arc, time::Instant};

use policy::TagLength;
use policy_store::{LeasePool, PolicyStore};
use tokio_util::sync::CancellationToken;

use super::{RunError, members::Members};
use crate::{
    callers::Admission,
    cleaner,
    metrics::{Metrics, dropsonde::emitter::Emitter},
    receipts::Receipts,
    server::Server,
    snapshot::feed::{self, Feeder},
};

/// What a server is made of.
pub(super) struct Parts {
    pub store: Arc<dyn PolicyStore>,
    pub metrics: Metrics,
    pub admission: Admission,
    pub tag_length: TagLength,
    pub lease_pool: LeasePool,
    pub shutdown: CancellationToken,
}

/// A server that knows everything and does not listen yet.
pub(super) struct Prepared {
    pub server: Arc<Server>,
    feeder: Feeder,
    emitter: Emitter,
}

impl Parts {
    /// Takes the first snapshot, and tells metron how things stand before any caller can know.
    pub(super) async fn prepare(self) -> Result<Prepared, RunError> {
        let Self { store, metrics, admission, tag_length, lease_pool, shutdown } = self;
        let store = metrics.telling_of(store);
        let (feed, feeder) = feed::start(store.clone(), tag_length, metrics.clone()).await?;
        let emitter = Emitter::start(metrics.clone(), feed.clone(), store.clone());
        let Admission { verifier, self_service, apps, cleaner } = admission;
        let server = Arc::new(Server {
            store,
            feed,
            receipts: Receipts::new(metrics.clone()),
            verifier,
            self_service,
            apps,
            cleaner,
            tag_length,
            lease_pool,
            metrics,
            started: Instant::now(),
            shutdown,
        });
        Ok(Prepared { server, feeder, emitter })
    }
}

impl Prepared {
    /// Keeps the server current from now on. It must be so until the last request is answered, so these
    /// members come before all listeners.
    pub(super) fn keep_current(self, members: &mut Members) -> Arc<Server> {
        let Self { server, feeder, emitter } = self;
        members.start_endless("the feeder of the snapshot", feeder.run());
        members.start_endless("the emitter of metrics", emitter.run());
        server
    }
}

/// Removes policies of apps that are gone, where somebody knows which are.
pub(super) fn clean_up(server: &Arc<Server>, members: &mut Members) {
    if server.cleaner.is_some() {
        members.start_endless("the cleaner of policies", cleaner::run(server.clone()));
    }
}
