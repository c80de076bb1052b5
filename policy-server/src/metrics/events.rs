//! What happens, counted for Prometheus. Every label has a handful of values, known here or in the
//! table of routes: nothing a caller sends becomes one.

use std::{
    fmt::{self, Write},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry, Unit},
};

use super::dropsonde::Fate;

/// What all names of ours begin with.
pub(super) const PREFIX: &str = "netman_policy_server";

/// From half a millisecond, which is good, to ten seconds, which nobody waits for.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A service this one asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each name says which service it is")]
pub enum Peer {
    Uaa,
    CloudController,
}

/// How an operation, or a question to another service, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// As it should.
    Succeeded,
    /// It did not.
    Failed,
}

/// What was found about a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is believed.
    Accepted,
    /// It is not, or nobody could tell.
    Refused,
}

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Status {
    Answered(u16),
    /// The caller left before the answer.
    HungUp,
}

/// How a poll of policies was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum PollAnswer {
    Whole,
    Delta,
    Unchanged,
}

/// The counters; each is registered under its name, and told of through a method.
pub(super) struct Events {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<RouteLabels, Histogram>,
    errors: Counter,
    polls_held: Gauge,
    polls_woken: Counter,
    poll_wake_seconds: Histogram,
    polls_answered: Family<HowLabels, Counter>,
    snapshot_rebuilds: Family<ReasonLabels, Counter>,
    snapshot_hints: Counter,
    operations: Family<OperationOutcomeLabels, Counter>,
    operation_seconds: Family<OperationLabels, Histogram>,
    verdicts: Family<VerdictLabels, Counter>,
    outbound: Family<OutboundLabels, Counter>,
    outbound_seconds: Family<PeerLabels, Histogram>,
    security_group_seconds: Family<StepLabels, Histogram>,
    datagrams: Family<FateLabels, Counter>,
    confirm_seconds: Histogram,
    receipts_written: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    status: Status,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationOutcomeLabels {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutboundLabels {
    peer: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerLabels {
    peer: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    step: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FateLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HowLabels {
    how: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

impl Events {
    /// Nothing has happened yet.
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let to = &mut registry;
        Self {
            requests: counted(to, "http_requests", "Requests, by route and status"),
            request_seconds: timed(
                to,
                "http_request_duration",
                "Time it took to answer, without the time polls were held",
            ),
            errors: counted(to, "http_errors", "Requests answered with an error"),
            polls_held: counted(to, "polls_held", "Polls that wait for a change"),
            polls_woken: counted(to, "polls_woken", "Held polls that a change concerned"),
            poll_wake_seconds: {
                let seconds = Histogram::new(SECONDS);
                let help = "Time from a change in the snapshot to the turn of a held poll";
                to.register_with_unit("poll_wake", help, Unit::Seconds, seconds.clone());
                seconds
            },
            polls_answered: counted(to, "polls_answered", "Polls of policies, by their answer"),
            snapshot_rebuilds: counted(
                to,
                "snapshot_rebuilds",
                "How often the snapshot was made of the whole state, by reason",
            ),
            snapshot_hints: counted(to, "snapshot_hints", "Hints of the database at a change"),
            operations: counted(
                to,
                "store_operations",
                "What the store was asked, and the snapshot",
            ),
            operation_seconds: timed(
                to,
                "store_operation_duration",
                "Time the store took to answer, or the snapshot",
            ),
            verdicts: counted(to, "token_verdicts", "Tokens of callers, by what was found"),
            outbound: counted(to, "outbound_requests", "Questions to other services"),
            outbound_seconds: timed(
                to,
                "outbound_request_duration",
                "Time other services took to answer",
            ),
            security_group_seconds: timed(
                to,
                "security_groups_sync_duration",
                "Time it took to bring security groups up to date",
            ),
            datagrams: counted(to, "dropsonde_datagrams", "Datagrams for metron"),
            confirm_seconds: confirming(to),
            receipts_written: counted(
                to,
                "receipts_written",
                "What cells said and was new, written",
            ),
            registry,
        }
    }

    /// Everything so far, as lines of OpenMetrics.
    pub(super) fn write(&self, page: &mut String) -> fmt::Result {
        text::encode_registry(page, &self.registry)
    }

    pub(super) fn request(&self, route: &'static str, status: Status, took: Duration) {
        self.requests.get_or_create(&RequestLabels { route, status }).inc();
        self.request_seconds.get_or_create(&RouteLabels { route }).observe(took.as_secs_f64());
    }

    pub(super) fn error(&self) {
        self.errors.inc();
    }

    /// A poll is held as long as the answer lives.
    pub(super) fn hold(&self) -> Held<'_> {
        self.polls_held.inc();
        Held(&self.polls_held)
    }

    pub(super) fn waking(&self, polls: usize) {
        self.polls_woken.inc_by(polls as u64);
    }

    pub(super) fn woke(&self, after: Duration) {
        self.poll_wake_seconds.observe(after.as_secs_f64());
    }

    pub(super) fn poll_answered(&self, how: PollAnswer) {
        let how = match how {
            PollAnswer::Whole => "whole",
            PollAnswer::Delta => "delta",
            PollAnswer::Unchanged => "unchanged",
        };
        self.polls_answered.get_or_create(&HowLabels { how }).inc();
    }

    pub(super) fn rebuilt(&self, reason: &'static str) {
        self.snapshot_rebuilds.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub(super) fn hinted(&self) {
        self.snapshot_hints.inc();
    }

    pub(super) fn operated(&self, operation: &'static str, outcome: Outcome, took: Duration) {
        let outcome = outcome.as_str();
        self.operations.get_or_create(&OperationOutcomeLabels { operation, outcome }).inc();
        let labels = OperationLabels { operation };
        self.operation_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(super) fn judged(&self, verdict: Verdict) {
        let verdict = match verdict {
            Verdict::Accepted => "accepted",
            Verdict::Refused => "refused",
        };
        self.verdicts.get_or_create(&VerdictLabels { verdict }).inc();
    }

    pub(super) fn outbound(&self, peer: Peer, outcome: Outcome, took: Duration) {
        let peer = match peer {
            Peer::Uaa => "uaa",
            Peer::CloudController => "cloud_controller",
        };
        let outcome = outcome.as_str();
        self.outbound.get_or_create(&OutboundLabels { peer, outcome }).inc();
        self.outbound_seconds.get_or_create(&PeerLabels { peer }).observe(took.as_secs_f64());
    }

    pub(super) fn security_groups(&self, step: &'static str, took: Duration) {
        let labels = StepLabels { step };
        self.security_group_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(super) fn confirmed(&self, took: Duration) {
        self.confirm_seconds.observe(took.as_secs_f64());
    }

    pub(super) fn receipts_written(&self, count: usize) {
        self.receipts_written.inc_by(count as u64);
    }

    pub(super) fn datagram(&self, fate: Fate) {
        let outcome = match fate {
            Fate::Sent => "sent",
            Fate::Dropped => "dropped",
        };
        self.datagrams.get_or_create(&FateLabels { outcome }).inc();
    }
}

/// See [`Events::hold`].
pub(super) struct Held<'a>(&'a Gauge);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Verdict {
    /// What was found when the verification gave `result`.
    pub fn of<T, E>(result: &Result<T, E>) -> Self {
        if result.is_ok() { Self::Accepted } else { Self::Refused }
    }
}

impl Outcome {
    /// How what gave `result` ended.
    pub fn of<T, E>(result: &Result<T, E>) -> Self {
        if result.is_ok() { Self::Succeeded } else { Self::Failed }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

impl EncodeLabelValue for Status {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Answered(status) => EncodeLabelValue::encode(status, encoder),
            Self::HungUp => encoder.write_str("hung_up"),
        }
    }
}

fn counted<M: Metric + Default + Clone>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn confirming(registry: &mut Registry) -> Histogram {
    let histogram = Histogram::new(SECONDS);
    let help = "Time from when this server knew of a change until a cell said that it enforces it";
    registry.register_with_unit("cell_confirm", help, Unit::Seconds, histogram.clone());
    histogram
}

fn timed<L>(registry: &mut Registry, name: &str, help: &str) -> Family<L, Histogram>
where
    L: EncodeLabelSet + fmt::Debug + Clone + Eq + std::hash::Hash + Send + Sync + 'static,
{
    let family = Family::<L, Histogram>::new_with_constructor(|| Histogram::new(SECONDS));
    registry.register_with_unit(name, help, Unit::Seconds, family.clone());
    family
}
