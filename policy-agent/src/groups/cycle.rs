//! The one loop that writes security groups to the kernel: whatever the reason to look, one pass
//! follows, and its status is published.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use service::log::chain;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::spawn_blocking,
    time::{Interval, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    answer::Answer,
    pass::{Enforcer, Held, Known, Outcome},
    status::{Standing, Status},
};
use crate::{
    cycle as policies, drift,
    firewall::{Seen, Shared},
    writers::Writers,
};

/// How soon a pass that had to be held is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How soon what policies have found changed in the kernel is looked at for security groups.
const GLANCE: Duration = Duration::from_secs(1);

/// A reason to look.
#[derive(Debug)]
pub(crate) enum Wake {
    /// The policy server has said something new.
    Answer(Answer),
    /// Somebody waits for a pass.
    Forced {
        /// A container that is said to be gone.
        gone: Option<String>,
        /// Is told once the pass is over.
        passed: oneshot::Sender<()>,
    },
}

/// The loop and what it remembers.
pub(crate) struct Cycle {
    enforcer: Option<Enforcer>,
    known: Known,
    wakes: mpsc::Receiver<Wake>,
    /// Says when the container store moves.
    moves: mpsc::Receiver<policies::Wake>,
    /// Says whether what no group allows is only watched.
    watches: watch::Receiver<bool>,
    statuses: watch::Sender<Status>,
    repair_interval: Duration,
    writers: Writers,
}

impl Cycle {
    pub fn new(
        (enforcer, writers): (Enforcer, Writers),
        answer: Option<Answer>,
        repair_interval: Duration,
        wakes: mpsc::Receiver<Wake>,
        moves: mpsc::Receiver<policies::Wake>,
        watches: watch::Receiver<bool>,
    ) -> (Self, watch::Receiver<Status>) {
        let (statuses, watching) = watch::channel(Status::default());
        let known = Known { answer, ..Known::default() };
        let enforcer = Some(enforcer);
        let cycle =
            Self { enforcer, known, wakes, moves, watches, statuses, repair_interval, writers };
        (cycle, watching)
    }

    /// Passes until `shutdown`. A pass that has begun is finished first.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut repair = interval(self.repair_interval);
        repair.set_missed_tick_behavior(MissedTickBehavior::Delay);
        repair.reset();
        let mut glance = interval(GLANCE);
        glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting: Vec<oneshot::Sender<()>> = Vec::new();
        loop {
            self.pass().await;
            for passed in waiting.drain(..) {
                // A waiter that has left does not mind.
                let _ = passed.send(());
            }
            let held = self.statuses.borrow().held.is_some();
            let retry =
                async { if held { sleep(RETRY).await } else { std::future::pending().await } };
            let last_look = self.enforcer.as_ref().map(Enforcer::last_look);
            tokio::select! {
                wake = self.wakes.recv() => match wake {
                    Some(wake) => waiting.extend(self.heed(wake)),
                    None => return,
                },
                moved = self.moves.recv() => if moved.is_none() {
                    return;
                },
                Ok(()) = self.watches.changed() => {}
                _ = repair.tick() => {}
                () = read_anew(last_look, &mut glance) => {}
                () = retry => {}
                () = shutdown.cancelled() => return,
            }
            // One pass serves all who have called by now.
            while let Ok(wake) = self.wakes.try_recv() {
                waiting.extend(self.heed(wake));
            }
            while self.moves.try_recv().is_ok() {}
        }
    }

    fn heed(&mut self, wake: Wake) -> Option<oneshot::Sender<()>> {
        match wake {
            Wake::Answer(answer) => {
                if let Some(enforcer) = &mut self.enforcer {
                    enforcer.hear(&answer);
                }
                self.known.answer = Some(answer);
                self.known.fresh = true;
                None
            }
            Wake::Forced { gone, passed } => {
                self.known.gone.extend(gone);
                Some(passed)
            }
        }
    }

    async fn pass(&mut self) {
        let started = Instant::now();
        let mut enforcer = self.enforcer.take().expect("is put back after every pass");
        self.known.watches = *self.watches.borrow_and_update();
        let known = self.known.clone();
        let (enforcer, result) = spawn_blocking(move || {
            let result = enforcer.pass(&known);
            (enforcer, result)
        })
        .await
        .expect("a pass returns errors, it does not panic");
        self.enforcer = Some(enforcer);

        let mut status = self.statuses.borrow().clone();
        status.pass += 1;
        match result {
            Ok(outcome) => {
                self.known.gone = BTreeSet::new();
                status.version = self.known.answer.as_ref().and_then(|a| a.version.clone());
                status.watches = self.known.watches;
                done(&mut status, outcome, &self.writers, started.elapsed());
            }
            Err(held) => hold(&mut status, &held),
        }
        self.statuses.send_replace(status);
    }
}

/// Ends when the kernel has been read for policies, since somebody else had written to it.
async fn read_anew(last_look: Option<(Shared, Seen)>, glance: &mut Interval) {
    glance.reset();
    loop {
        glance.tick().await;
        if last_look.as_ref().is_some_and(|(firewall, seen)| firewall.was_read_since(*seen)) {
            return;
        }
    }
}

fn done(status: &mut Status, outcome: Outcome, writers: &Writers, took: Duration) {
    let Outcome {
        spaces,
        standings,
        groups,
        rules,
        touched,
        repaired,
        drift,
        connections_cut,
        enforces,
    } = outcome;
    let by = writers.take();
    for (handle, standing) in &standings {
        if let Standing::Kept(reason) | Standing::Unplaced(reason) = standing
            && status.containers.get(handle) != Some(standing)
        {
            tracing::warn!(
                container.handle = handle,
                reason,
                "The security groups of a container cannot be enforced; it keeps what it has."
            );
        }
    }
    if repaired {
        status.drift.note(&drift, &by, time::OffsetDateTime::now_utc());
        let found = drift::told(&drift);
        let (chains, writers) = (drift::listed(&touched), drift::listed(&by));
        tracing::warn!(
            chains,
            found,
            writers,
            "Security groups that somebody else had changed were put right."
        );
    } else if !touched.is_empty() {
        let says = match standings.values().all(|one| *one == Standing::Enforced) {
            true => "The kernel enforces security groups as wanted.",
            false => {
                "The kernel enforces security groups, but not of all containers; the others keep what they have."
            }
        };
        tracing::info!(
            chains.touched = touched.len(),
            containers = standings.len(),
            rules,
            connections.cut = connections_cut,
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "{says}"
        );
    }
    status.held = None;
    status.enforces = enforces;
    status.spaces = spaces;
    status.groups = groups;
    status.containers = standings;
    status.rules = rules;
    status.repairs += u64::from(repaired);
    status.connections_cut += connections_cut;
}

/// The kernel is as it was: what it enforced, it enforces. Unless it was looked at and is not, or what was
/// to be put right could not be.
fn hold(status: &mut Status, held: &Held) {
    let reason = chain(held);
    if status.held.as_ref() != Some(&reason) {
        tracing::warn!(error = reason, "A pass over security groups was held; the rules stay.");
    }
    status.held = Some(reason);
    status.enforces &= !matches!(held, Held::Disagrees(_) | Held::Kernel(_));
}
