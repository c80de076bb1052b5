//! What metron is told without anything having happened (spec/policy-server.md §11).

use std::{sync::Arc, time::Duration};

use policy_store::{PolicyStore, StoreFigures, StorePeaks};
use tokio::time::{MissedTickBehavior, interval};

use super::Unit;
use crate::{metrics::Metrics, snapshot::feed::Feed};

/// How often.
const EVERY: Duration = Duration::from_secs(30);

/// A snapshot that was not compared with the database for this long says nothing about how many
/// policies there are.
const STALE: Duration = Duration::from_secs(30);

/// Tells metron how things stand.
pub(crate) struct Emitter {
    metrics: Metrics,
    feed: Feed,
    store: Arc<dyn PolicyStore>,
}

impl Emitter {
    /// Tells at once, so that metron knows of a server before its callers do; [`run`](Self::run)
    /// goes on from there.
    pub(crate) fn start(metrics: Metrics, feed: Feed, store: Arc<dyn PolicyStore>) -> Self {
        let emitter = Self { metrics, feed, store };
        emitter.emit();
        emitter
    }

    /// Tells every half minute, until dropped.
    pub(crate) async fn run(self) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.tick().await;
        loop {
            tick.tick().await;
            self.emit();
        }
    }

    fn emit(&self) {
        self.tell("uptime", self.metrics.0.started.elapsed().as_secs_f64(), Unit::Seconds);
        if let Ok(processors) = std::thread::available_parallelism() {
            self.tell("numCPUS", processors.get() as f64, Unit::Count);
        }
        if self.feed.age() > STALE {
            tracing::error!("The snapshot is too old to tell metron how many policies there are.");
        } else {
            self.tell("totalPolicies", self.feed.snapshot().policy_count() as f64, Unit::None);
        }
        self.tell_of_database();
    }

    fn tell_of_database(&self) {
        let StoreFigures { connections, succeeded, failed, in_flight: _ } = self.store.figures();
        let StorePeaks { in_flight, duration } = self.store.peaks();
        self.tell("DBOpenConnections", f64::from(connections), Unit::None);
        self.tell("DBQueriesTotal", (succeeded + failed) as f64, Unit::None);
        self.tell("DBQueriesSucceeded", succeeded as f64, Unit::None);
        self.tell("DBQueriesFailed", failed as f64, Unit::None);
        self.tell("DBQueriesInFlight", in_flight as f64, Unit::None);
        self.tell("DBQueryDurationMax", duration.as_secs_f64(), Unit::Seconds);
    }

    fn tell(&self, name: &str, value: f64, unit: Unit) {
        self.metrics.value(name.to_owned(), value, unit);
    }
}
