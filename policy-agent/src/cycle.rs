//! The one loop that touches the kernel: whatever the reason to look, one pass follows, and its status
//! is published.

use std::{
    collections::BTreeSet,
    fmt::Display,
    time::{Duration, Instant},
};

use policy::AppGuid;
use policy_client::internal::Backend;
use service::log::chain;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::spawn_blocking,
    time::{Interval, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Config,
    answer::Answer,
    drift,
    explain::{Explanation, Flow},
    files::Unknown,
    pass::{Enforcer, Held, Outcome},
    shadow::{Kind, Promoted},
    status::{Enforced, Status, Why},
    waiting::{Locks, Waiting},
    world,
    writers::Writers,
};

/// How soon a pass that had to be held is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How often the kernel is asked whether somebody else has written to it.
const GLANCE: Duration = Duration::from_secs(1);

/// Where somebody waits to hear which apps a pass found here.
pub(crate) type Waiter = oneshot::Sender<BTreeSet<AppGuid>>;

/// A reason to look.
#[derive(Debug)]
pub(crate) enum Wake {
    /// The container store or the subnet file has moved.
    Containers,
    /// The policy server has said something new.
    Answer(Answer),
    /// Somebody waits for a pass, and is told the apps it found.
    Forced(Waiter),
    /// Somebody has a question that only who knows the kernel can answer.
    Asked(Question),
}

/// A question, and where its answer is waited for; an error says why there is none.
#[derive(Debug)]
pub(crate) enum Question {
    /// What becomes of a packet.
    Explain(Flow, oneshot::Sender<Result<Explanation, String>>),
    /// The rules that are wanted.
    Rules(oneshot::Sender<Result<String, String>>),
    /// To enforce what was only watched; what that is.
    Promote(BTreeSet<Kind>, oneshot::Sender<Result<Promoted, String>>),
}

/// The loop and what it remembers.
pub(crate) struct Cycle {
    enforcer: Option<Enforcer>,
    answer: Option<Answer>,
    wakes: mpsc::Receiver<Wake>,
    statuses: watch::Sender<Status>,
    repair_interval: Duration,
    writers: Writers,
    locks: Locks,
}

impl Cycle {
    pub fn new(
        config: &Config,
        enforcer: Enforcer,
        backend: Backend,
        answer: Option<Answer>,
        wakes: mpsc::Receiver<Wake>,
    ) -> (Self, watch::Receiver<Status>) {
        let apps = answer.as_ref().map(|answer| answer.apps.clone()).unwrap_or_default();
        let (statuses, watching) = watch::channel(Status {
            backend,
            apps,
            policies_disabled: config.policies_disabled,
            container_network_v6: config.second_network,
            ..Status::unknown()
        });
        let repair_interval = config.repair_interval;
        let (writers, locks) = (Writers::default(), Locks::of(config));
        (
            Self {
                enforcer: Some(enforcer),
                answer,
                wakes,
                statuses,
                repair_interval,
                writers,
                locks,
            },
            watching,
        )
    }

    /// Who else writes to the kernel, as far as it is heard of.
    pub fn writers(&self) -> Writers {
        self.writers.clone()
    }

    /// Passes until `shutdown`. A pass that has begun is finished first.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut repair = interval(self.repair_interval);
        repair.set_missed_tick_behavior(MissedTickBehavior::Delay);
        repair.reset();
        // A look at a number, and no more as long as nobody else writes.
        let mut glance = interval(GLANCE);
        glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut why = Why::Start;
        let mut waiting = Vec::new();
        loop {
            self.pass(why).await;
            let apps = self.statuses.borrow().apps.clone();
            waiting.drain(..).for_each(|waiter: Waiter| {
                // A waiter that has left does not mind.
                let _ = waiter.send(apps.clone());
            });
            let held = self.statuses.borrow().held.is_some();
            let retry =
                async { if held { sleep(RETRY).await } else { std::future::pending().await } };
            let took = self.enforcer.as_ref().map(Enforcer::took).unwrap_or_default();
            why = tokio::select! {
                wake = self.wakes.recv() => match wake {
                    Some(wake) => self.heed(wake, &mut waiting).await,
                    None => return,
                },
                _ = repair.tick() => Why::Repair,
                () = moved(&mut self.enforcer, &mut glance, took) => Why::Moved,
                () = retry => why,
                () = shutdown.cancelled() => return,
            };
            // One pass serves all who have called by now.
            while let Ok(wake) = self.wakes.try_recv() {
                why = self.heed(wake, &mut waiting).await;
            }
        }
    }

    async fn heed(&mut self, wake: Wake, waiting: &mut Vec<Waiter>) -> Why {
        match wake {
            Wake::Containers => Why::Containers,
            Wake::Answer(answer) => {
                self.answer = Some(answer);
                Why::Answer
            }
            Wake::Forced(waiter) => {
                waiting.push(waiter);
                Why::Forced
            }
            // Answered before anything is put right, so that what is told is what is found.
            Wake::Asked(question) => {
                self.answer(question).await;
                Why::Forced
            }
        }
    }

    async fn answer(&mut self, question: Question) {
        // Whoever has left needs no answer.
        match question {
            Question::Explain(flow, tell) => {
                let told = self.beside(move |enforcer, answer| enforcer.explain(answer, &flow));
                let _ = tell.send(told.await.map_err(|held| chain(&held)));
            }
            Question::Rules(tell) => {
                let told = self.beside(Enforcer::rules);
                let _ = tell.send(told.await.map_err(|held| chain(&held)));
            }
            Question::Promote(kinds, tell) => {
                let promoted = self.beside(move |enforcer, _| enforcer.promote(&kinds)).await;
                match &promoted {
                    Ok(report) if report.is_empty() => {
                        tracing::info!("Nothing of what was to be promoted was only watched.");
                    }
                    Ok(report) => {
                        let promoted = report.to_string();
                        tracing::info!(promoted, "What was only watched is enforced now.");
                    }
                    Err(_) => {}
                }
                let _ = tell.send(promoted.map_err(|error| chain(&error)));
            }
        }
    }

    /// Runs what blocks beside the runtime.
    async fn beside<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Enforcer, Option<&Answer>) -> T + Send + 'static,
    ) -> T {
        let mut enforcer = self.enforcer.take().expect("is put back after every use");
        let answer = self.answer.clone();
        let (enforcer, result) = spawn_blocking(move || {
            let result = work(&mut enforcer, answer.as_ref());
            (enforcer, result)
        })
        .await
        .expect("a pass returns errors, it does not panic");
        self.enforcer = Some(enforcer);
        result
    }

    async fn pass(&mut self, why: Why) {
        let started = Instant::now();
        let thorough = matches!(why, Why::Start | Why::Repair);
        let (locks, statuses) = (self.locks.clone(), self.statuses.clone());
        let pass = self.beside(move |enforcer, answer| {
            let result = enforcer.pass(answer, thorough);
            if thorough {
                // All that the kernel holds has been read, of which little is kept.
                hostnet::heap::trim();
            }
            result
        });
        let result = locks.during(&statuses, pass).await;

        let mut status = self.statuses.borrow().clone();
        status.pass += 1;
        status.why = why;
        status.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        status.waiting = match result {
            Ok(_) => None,
            Err(_) => self.locks.look(status.waiting).filter(Waiting::is_long),
        };
        match result {
            Ok(outcome) => self.done(&mut status, outcome),
            Err(held) => hold(&mut status, &held),
        }
        self.statuses.send_replace(status);
    }

    fn done(&self, status: &mut Status, outcome: Outcome) {
        let Outcome {
            residents,
            stale,
            of_former_run,
            enforced,
            rules,
            elements,
            chains,
            touched,
            repaired,
            drift,
            connections_cut,
            shadow,
            unguarded,
            bypassed,
            bypassed_in_part,
            networker_changes,
        } = outcome;
        let writers = self.writers.take();
        status.held = None;
        status.has_looked = true;
        status.apps = world::apps(&residents);
        status.containers = world::World::containers(&residents);
        status.containers_stale = stale.is_some();
        status.containers_failure = stale;
        if of_former_run && !status.of_former_run {
            tracing::warn!(
                rules,
                elements,
                "Nothing is known of policies yet, neither from the server nor from disk: rules of a former run stay in force."
            );
        }
        status.of_former_run = of_former_run;
        status.rules = rules;
        status.elements = elements;
        status.chains = chains;
        status.repairs += u64::from(repaired);
        status.connections_cut += connections_cut;
        status.shadow = shadow;
        retell(
            &mut status.unguarded,
            unguarded,
            "What the networker wrote for containers is not whole; it is to be repaired.",
            "What the networker wrote for containers is whole again.",
        );
        retell(
            &mut status.bypassed,
            bypassed,
            "Somebody else's rule stands in front of those of containers.",
            "No rule of others stands in front of those of containers any more.",
        );
        retell(
            &mut status.bypassed_in_part,
            bypassed_in_part,
            "Somebody else's rule in front of those of containers may let some packets go.",
            "No rule of others may let some packets go in front of those of containers any more.",
        );
        status.networker_changes = networker_changes;
        status.enforced = match &self.answer {
            Some(Answer { apps, version, .. }) if enforced => {
                Some(Enforced { apps: apps.clone(), version: version.clone() })
            }
            _ => None,
        };
        if repaired {
            status.drift.note(&drift, &writers, time::OffsetDateTime::now_utc());
            let found = drift::told(&drift);
            let (chains, writers) = (drift::listed(&touched), drift::listed(&writers));
            tracing::warn!(
                chains,
                found,
                writers,
                "Rules that somebody else had changed were put right."
            );
        } else if !touched.is_empty() {
            tracing::info!(
                why = ?status.why,
                chains.touched = touched.len(),
                containers = status.containers,
                rules,
                elements,
                connections.cut = connections_cut,
                duration_ms = status.duration_ms,
                "The kernel enforces what is wanted."
            );
        }
    }
}

/// Ends when somebody else has written to the kernel. Reading it back takes time, as a pass `took` that
/// waited for nobody, of which no more than a tenth is spent on what others write.
async fn moved(enforcer: &mut Option<Enforcer>, glance: &mut Interval, took: Duration) {
    glance.reset_after(GLANCE.max(took * 10));
    loop {
        glance.tick().await;
        if enforcer.as_mut().is_some_and(Enforcer::has_moved) {
            return;
        }
    }
}

/// Puts what is `amiss` now in the place of what was, and tells of it if that is other.
fn retell<T: PartialEq + Display>(known: &mut Vec<T>, now: Vec<T>, amiss: &str, well: &str) {
    if *known != now {
        match now.first() {
            Some(first) => tracing::warn!(%first, all = now.len(), "{amiss}"),
            None => tracing::info!("{well}"),
        }
    }
    *known = now;
}

/// The kernel is as it was: what it enforced, it enforces. Unless it was looked at and is not.
fn hold(status: &mut Status, held: &Held) {
    let reason = chain(held);
    if status.held.as_ref() != Some(&reason) {
        tracing::warn!(error = reason, "A pass was held; the rules stay as they are.");
    }
    if let Held::Unknown(Unknown::Containers(_) | Unknown::StoreGone(_)) = held {
        status.containers_failure = Some(reason.clone());
    }
    status.held = Some(reason);
    if matches!(held, Held::Disagrees(..)) {
        status.enforced = None;
    }
}

#[cfg(test)]
mod tests {
    use netfilter::KernelError;

    use super::*;

    #[test]
    fn a_kernel_that_does_not_hold_what_was_committed_takes_the_receipt_back() {
        let enforced = Enforced { apps: BTreeSet::new(), version: "life.7".parse().ok() };
        let mut status =
            Status { held: None, enforced: Some(enforced.clone()), ..Status::unknown() };
        hold(&mut status, &Held::Kernel(KernelError::Fake("told to fail".into())));
        assert_eq!(status.enforced, Some(enforced));
        hold(&mut status, &Held::Disagrees(["vpa--forward".to_owned()].into(), None));
        assert_eq!(status.enforced, None);
    }
}
