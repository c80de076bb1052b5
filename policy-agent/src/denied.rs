//! Packets our rules tell of: one line for each that was denied, or let in where that is to be logged,
//! with both apps; and counters for each pair of apps.
//!
//! The rules say what became of a packet ([`Reason`], in the text before it) and are limited in how
//! often they say it, so that a flood costs the cell little; the lines of each pair of apps are limited
//! once more, so that one pair leaves the others room. Counters are therefore lower bounds.

mod known;
mod ledger;
mod reason;

use std::{
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use netfilter::{Action, Limit, Log, LogPrefix, Rule};
use netfilter_events::nflog::Listener;
use service::log::chain;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use ledger::Line;

pub(crate) use known::Sources;
pub(crate) use ledger::{Ledger, Pair};
pub(crate) use reason::{Reason, Verdict};

/// The group rules tell of packets in: ours, and the networker's.
pub(crate) const GROUP: u16 = netfilter::egress::GROUP;

/// How many packets a second each rule that denies may tell of, at length and at once.
const OFTEN: NonZeroU32 = NonZeroU32::new(100).expect("is not zero");

/// How soon listening is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// The rule that tells of what is denied for this reason; it goes before those that deny.
pub(crate) fn tell(reason: Reason) -> Rule {
    tell_at_most(OFTEN, reason)
}

/// The same for another rate.
pub(crate) fn tell_at_most(per_second: NonZeroU32, reason: Reason) -> Rule {
    let log = Log { prefix: LogPrefix::new(reason.prefix()), group: Some(GROUP) };
    Rule::new(Action::Log(log)).limit(Limit { per_second, burst: per_second })
}

/// Whether what a policy lets in is told, which may change while the agent runs, and how often a second.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    per_second: NonZeroU32,
    is_told: Arc<AtomicBool>,
}

impl Accepted {
    /// To begin with.
    pub fn new(is_told: bool, per_second: NonZeroU32) -> Self {
        Self { per_second, is_told: Arc::new(AtomicBool::new(is_told)) }
    }

    /// From the next pass on.
    pub fn tell(&self, is_told: bool) {
        self.is_told.store(is_told, Ordering::Relaxed);
    }

    pub fn is_told(&self) -> bool {
        self.is_told.load(Ordering::Relaxed)
    }

    /// How often, if at all.
    pub fn rate(&self) -> Option<NonZeroU32> {
        self.is_told().then_some(self.per_second)
    }
}

/// What was told, for whoever counts; the listening task writes it.
#[derive(Debug, Clone)]
pub(crate) struct Told(Arc<Mutex<Ledger>>);

impl Told {
    /// Nothing yet. Of each pair of apps, this many lines a second are written.
    pub fn new(accepted_per_second: NonZeroU32, others_per_second: NonZeroU32) -> Self {
        Self(Arc::new(Mutex::new(Ledger::new(accepted_per_second, others_per_second))))
    }

    /// What has been told so far.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Counting does not panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens until `shutdown`, while `sources` say who is who.
    pub async fn listen(self, mut sources: Sources, shutdown: CancellationToken) {
        let mut told = false;
        loop {
            let failed = tokio::select! {
                failed = self.follow(&mut sources) => failed,
                () = shutdown.cancelled() => return,
            };
            if !told {
                let error = chain(&failed);
                tracing::warn!(
                    error,
                    "Denied packets cannot be heard of; they are denied all the same."
                );
                told = true;
            }
            tokio::select! {
                () = sleep(RETRY) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn follow(&self, sources: &mut Sources) -> std::io::Error {
        let mut listener = match Listener::open(GROUP).await {
            Ok(listener) => listener,
            Err(error) => return error,
        };
        loop {
            let told = match listener.next().await {
                Ok(told) => told,
                Err(error) => return error,
            };
            let known = sources.known().await;
            let mut ledger = self.ledger();
            if told.lost {
                ledger.lose();
            }
            let lines: Vec<_> =
                told.packets.iter().filter_map(|packet| ledger.note(packet, known)).collect();
            drop(ledger);
            lines.iter().for_each(write);
        }
    }
}

/// One line; what is not known is left out of it.
fn write(line: &Line) {
    let Line { verdict, reason, source, destination, protocol, icmp, mark, more } = line;
    let sentence = match verdict {
        Verdict::Denied => "A packet was denied.",
        Verdict::WouldDeny => "A packet would have been denied.",
        Verdict::Accepted => "A packet was let in.",
    };
    tracing::info!(
        target: "packets",
        verdict = verdict.as_str(),
        reason = reason.as_str(),
        why = reason.sentence(),
        source.app = source.app.as_deref(),
        source.space = source.space.as_deref(),
        source.organization = source.organization.as_deref(),
        source.container = source.container.as_deref(),
        source.ip = %source.ip,
        source.port = source.port,
        destination.app = destination.app.as_deref(),
        destination.space = destination.space.as_deref(),
        destination.organization = destination.organization.as_deref(),
        destination.container = destination.container.as_deref(),
        destination.ip = %destination.ip,
        destination.port = destination.port,
        protocol,
        icmp.kind = icmp.map(|(kind, _)| kind),
        icmp.code = icmp.map(|(_, code)| code),
        mark = format_args!("{mark:#x}"),
        // Packets like it that got no line of their own.
        more,
        "{sentence}"
    );
}
