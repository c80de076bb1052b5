//! Asks the policy server about the apps of this cell, and holds the question open (design §2.3).

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use policy::{AppGuid, Version};
use policy_client::internal::{self, Client, ClientError, Question};
use service::log::chain;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Config,
    answer::{Answer, Saved},
    cycle::Wake,
    status::Status,
};

/// How long the server may hold a question.
const HOLD: Duration = Duration::from_secs(55);

/// An answer that comes sooner than this, and says that nothing changed, was not held.
const HELD: Duration = Duration::from_secs(1);

/// The first pause after a failure; doubled each time up to the poll interval.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// What became of the last question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The apps it was about.
    pub apps: BTreeSet<AppGuid>,
    /// Why there was no usable answer.
    pub failure: Option<String>,
}

/// The loop that asks.
pub(crate) struct Poller {
    client: Client,
    saved: Saved,
    wake: mpsc::Sender<Wake>,
    statuses: watch::Receiver<Status>,
    reach: watch::Sender<Reach>,
    poll_interval: Duration,
    pause: Duration,
}

impl Poller {
    pub fn new(
        config: &Config,
        client: Client,
        saved: Saved,
        wake: mpsc::Sender<Wake>,
        statuses: watch::Receiver<Status>,
    ) -> (Self, watch::Receiver<Reach>) {
        let (reach, reaching) = watch::channel(Reach { apps: BTreeSet::new(), failure: None });
        let poll_interval = config.poll_interval;
        let poller =
            Self { client, saved, wake, statuses, reach, poll_interval, pause: FIRST_PAUSE };
        (poller, reaching)
    }

    /// Asks until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            () = self.ask_on() => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn ask_on(&mut self) {
        // Without a first pass it is not known what to ask.
        if self.statuses.wait_for(|status| status.pass > 0).await.is_err() {
            return;
        }
        loop {
            let (apps, known) = self.question();
            let asked = Instant::now();
            let question = Question { apps: apps.clone(), known: known.clone(), wait: Some(HOLD) };
            let answer = tokio::select! {
                answer = self.client.policies(&question) => answer,
                () = other_apps(self.statuses.clone(), &apps) => continue,
            };
            let pause = self.digest(apps.clone(), known, answer, asked.elapsed()).await;
            tokio::select! {
                () = sleep(pause) => {}
                () = other_apps(self.statuses.clone(), &apps) => {}
            }
        }
    }

    /// The apps here now, and the version the kernel enforces of exactly those.
    fn question(&mut self) -> (BTreeSet<AppGuid>, Option<Version>) {
        let status = self.statuses.borrow_and_update();
        let known = status.receipt_for(&status.apps).cloned();
        (status.apps.clone(), known)
    }

    /// Acts on an answer and says how long to wait before the next question.
    async fn digest(
        &mut self,
        apps: BTreeSet<AppGuid>,
        known: Option<Version>,
        answer: Result<internal::Answer, ClientError>,
        took: Duration,
    ) -> Duration {
        let outcome = match answer {
            Ok(internal::Answer::NotModified(_)) => {
                Ok(if took < HELD { self.jittered() } else { Duration::ZERO })
            }
            Ok(internal::Answer::Policies { policies, version }) => {
                self.take(apps.clone(), known, &policies, version).await
            }
            Err(error) => Err(chain(&error)),
        };
        let (pause, failure) = match outcome {
            Ok(pause) => {
                self.pause = FIRST_PAUSE;
                (pause, None)
            }
            Err(reason) => (self.longer_pause(), Some(reason)),
        };
        self.report(Reach { apps, failure });
        pause
    }

    /// Hands a new answer to the cycle and waits until the kernel enforces it: the next question is
    /// the receipt.
    async fn take(
        &mut self,
        apps: BTreeSet<AppGuid>,
        known: Option<Version>,
        policies: &[policy::TaggedPolicy],
        version: Option<Version>,
    ) -> Result<Duration, String> {
        let answer =
            Answer::check(apps.clone(), policies, version.clone()).map_err(|e| chain(&e))?;
        if version.is_some() && version == known {
            // The server did not recognise its own version; asking at once would only repeat this.
            return Ok(self.jittered());
        }
        self.saved.store(&answer, policies);
        let before = self.statuses.borrow().pass;
        if self.wake.send(Wake::Answer(answer)).await.is_err() {
            return Ok(Duration::ZERO); // the cycle has ended, and so shall we
        }
        let settled = |status: &Status| {
            let enforced = status.enforced.as_ref();
            status.held.is_none()
                && enforced.is_some_and(|e| e.apps == apps && e.version == version)
        };
        // A pass may have been under way already, hence two; one that is held is an answer as well.
        let passed = |status: &Status| settled(status) || status.pass > before + 1;
        match self.statuses.wait_for(passed).await {
            Ok(status) if settled(&status) => {}
            Ok(status) => return Err(status.held.clone().unwrap_or_else(|| "not enforced".into())),
            Err(_) => return Ok(Duration::ZERO),
        }
        Ok(if version.is_some() { Duration::ZERO } else { self.jittered() })
    }

    fn report(&self, reach: Reach) {
        let now = reach.failure.clone();
        let before = self.reach.send_replace(reach).failure;
        match (before, now) {
            (None, Some(error)) => {
                tracing::warn!(error, "The policy server gives no usable answer; the rules stay.");
            }
            (Some(_), None) => tracing::info!("The policy server answers again."),
            _ => {}
        }
    }

    /// Cells that were cut off together must not come back together.
    fn jittered(&self) -> Duration {
        self.poll_interval.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    fn longer_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(self.poll_interval);
        pause.mul_f64(0.5 + fastrand::f64())
    }
}

/// Ends when the cell's apps are no longer `apps`: then the question must be another.
async fn other_apps(mut statuses: watch::Receiver<Status>, apps: &BTreeSet<AppGuid>) {
    // An error means that the cycle has ended; whoever waits here is about to be stopped.
    if statuses.wait_for(|status| status.apps != *apps).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
