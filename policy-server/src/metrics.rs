//! What a server tells about itself, to two audiences that need not both be there: a page for
//! Prometheus (`page`) and datagrams for the platform's metron agent ([`dropsonde`],
//! spec/policy-server.md §11).
//!
//! What happens is told to [`Metrics`] when it happens. How things stand is read when it is asked
//! for, by `readings` for the page and by the emitter for metron.

pub mod dropsonde;
mod events;
mod levels;
mod measure;
pub(crate) mod page;
mod process;
mod readings;
mod store;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

pub use events::{Outcome, Peer, Verdict};
pub(crate) use {events::PollAnswer, measure::measure, store::Operation};

use crate::{api::Measured, asg::syncer::SyncMetrics};
use dropsonde::{DropsondeError, Metron, Origin, Unit};
use events::{Events, Status};

/// Where everything that happens is told. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    started: Instant,
    events: Events,
    metron: Option<Metron>,
}

impl Metrics {
    /// For the page alone.
    pub fn new() -> Self {
        Self::with(None)
    }

    /// For the page, and for the metron agent at `address` (host and port) in the name of `origin`.
    pub async fn to_metron(origin: Origin, address: &str) -> Result<Self, DropsondeError> {
        Metron::at(origin, address).await.map(|metron| Self::with(Some(metron)))
    }

    fn with(metron: Option<Metron>) -> Self {
        Self(Arc::new(Inner { started: Instant::now(), events: Events::new(), metron }))
    }

    /// Another service was asked something.
    pub fn outbound(&self, peer: Peer, outcome: Outcome, took: Duration) {
        self.0.events.outbound(peer, outcome, took);
    }

    /// Somebody has judged a token.
    pub fn judged(&self, verdict: Verdict) {
        self.0.events.judged(verdict);
    }

    /// A cell came to enforce something that this server knew of for as long as `took`.
    pub(crate) fn confirmed(&self, took: Duration) {
        self.0.events.confirmed(took);
    }

    /// The database was told what so many cells said.
    pub(crate) fn receipts_written(&self, count: usize) {
        self.0.events.receipts_written(count);
    }

    /// The store did something, or the snapshot in its place.
    fn operated(&self, operation: Operation, outcome: Outcome, took: Duration) {
        self.0.events.operated(operation.as_str(), outcome, took);
        let name = operation.as_str();
        match outcome {
            Outcome::Succeeded => self.milliseconds(format!("{name}SuccessTime"), took),
            Outcome::Failed => {
                self.milliseconds(format!("{name}ErrorTime"), took);
                self.count(format!("{name}Error"));
            }
        }
    }

    /// Waits for `change` on behalf of a caller that is in no hurry: counted as a held poll, and not
    /// as time it took to answer.
    pub(crate) async fn held<T>(&self, change: impl Future<Output = T>) -> T {
        let _held = self.0.events.hold();
        measure::resting(change).await
    }

    /// So many held polls are concerned by a change.
    pub(crate) fn waking(&self, polls: usize) {
        self.0.events.waking(polls);
    }

    /// One of them got its turn.
    pub(crate) fn woke(&self, after: Duration) {
        self.0.events.woke(after);
    }

    /// A question of a cell that may be held was answered.
    pub(crate) fn poll_answered(&self, how: PollAnswer) {
        self.0.events.poll_answered(how);
    }

    /// The snapshot was made anew, for this reason.
    pub(crate) fn rebuilt(&self, reason: &'static str) {
        self.0.events.rebuilt(reason);
    }

    /// The database hinted at a change.
    pub(crate) fn hinted(&self) {
        self.0.events.hinted();
    }

    /// A request ended.
    fn request(&self, Measured(route): Measured, status: Status, took: Duration) {
        self.0.events.request(route, status, took);
        self.milliseconds(format!("{route}RequestTime"), took);
        self.count(format!("{route}RequestCount"));
    }

    /// A request was answered with an error (spec/policy-server.md §2.5).
    fn error(&self) {
        self.0.events.error();
        self.count("http_error".to_owned());
    }

    fn milliseconds(&self, name: String, took: Duration) {
        self.value(name, took.as_secs_f64() * 1000.0, Unit::Milliseconds);
    }

    fn value(&self, name: String, value: f64, unit: Unit) {
        if let Some(metron) = &self.0.metron {
            self.0.events.datagram(metron.value(name, value, unit));
        }
    }

    fn count(&self, name: String) {
        if let Some(metron) = &self.0.metron {
            self.0.events.datagram(metron.count(name));
        }
    }
}

impl SyncMetrics for Metrics {
    fn retrieved(&self, took: Duration) {
        self.0.events.security_groups("retrieval", took);
        self.milliseconds("SecurityGroupsRetrievalFromCCTime".to_owned(), took);
    }

    fn synced(&self, took: Duration) {
        self.0.events.security_groups("total", took);
        self.milliseconds("SecurityGroupsTotalSyncTime".to_owned(), took);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("metron", &self.0.metron).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use platform::metron::{Event, Metron};

    use super::*;

    #[tokio::test]
    async fn metron_is_told_how_long_a_sync_took() {
        let metron = Metron::start().await;
        let address = metron.address().to_string();
        let metrics = Metrics::to_metron(Origin::AsgSyncer, &address).await.unwrap();
        metrics.retrieved(Duration::from_millis(1500));
        metrics.synced(Duration::from_secs(2));
        for (name, milliseconds) in
            [("SecurityGroupsRetrievalFromCCTime", 1500.0), ("SecurityGroupsTotalSyncTime", 2000.0)]
        {
            let heard = metron.hears(name).await;
            assert_eq!(heard.origin, "policy-server-asg-syncer");
            let Event::Value { value, unit, .. } = heard.event else { panic!("no value") };
            assert_eq!((value, unit.as_str()), (milliseconds, "ms"));
        }
    }
}
