//! What metron is told without anything having happened (spec/policy-server.md §11).

use std::time::Duration;

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
}

impl Emitter {
    /// Tells at once, so that metron knows of a server before its callers do; [`run`](Self::run)
    /// goes on from there.
    pub(crate) fn start(metrics: Metrics, feed: Feed) -> Self {
        let emitter = Self { metrics, feed };
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
        let tell = |name: &str, value: f64, unit| self.metrics.value(name.to_owned(), value, unit);
        tell("uptime", self.metrics.0.started.elapsed().as_secs_f64(), Unit::Seconds);
        if let Ok(processors) = std::thread::available_parallelism() {
            tell("numCPUS", processors.get() as f64, Unit::Count);
        }
        if self.feed.age() > STALE {
            tracing::error!("The snapshot is too old to tell metron how many policies there are.");
        } else {
            tell("totalPolicies", self.feed.snapshot().policy_count() as f64, Unit::None);
        }
    }
}
