//! Asks the policy server for the security groups of the spaces here, and holds the question open
//! (design §2.3). A server that does not hold it is asked every `asg_poll_interval`. What the kernel
//! enforces of the version that is known, the question says as well, so that it is a receipt.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use policy::Version;
use policy_client::internal::{
    Client, ClientError, GroupsAnswer, GroupsQuestion, GroupsTold, ReceiptWords, follow,
};
use service::log::chain;
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    answer::{Answer, Saved},
    cycle::Wake,
    status::Status,
};

/// The first pause after a question that came to nothing; then twice that, up to the interval.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// No two questions about the same sooner than this, whatever a server promises.
const LEAST_PAUSE: Duration = Duration::from_millis(200);

/// An answer that took longer than this was held, whatever became of the word of it on the way.
const HELD: Duration = Duration::from_secs(2);

/// How long the kernel may take to be told of an answer before the next question.
const PATIENCE: Duration = Duration::from_secs(2);

/// An older answer is believed when it comes for the third time in a row.
const SIGHTINGS: u32 = 3;

/// What became of the last question.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The spaces it was about.
    pub spaces: BTreeSet<String>,
    /// Why there was no usable answer.
    pub failure: Option<String>,
}

/// Whoever can tell security groups.
pub(crate) trait Server: Send + Sync + 'static {
    /// One question and its answer.
    fn groups(
        &self,
        question: &GroupsQuestion,
    ) -> impl Future<Output = Result<GroupsTold, ClientError>> + Send;
}

impl Server for Client {
    async fn groups(&self, question: &GroupsQuestion) -> Result<GroupsTold, ClientError> {
        self.security_groups(question).await
    }
}

/// The loop that asks.
pub(crate) struct Poller<S = Client> {
    server: S,
    interval: Duration,
    /// The longest pause after failures.
    patience: Duration,
    known: Option<Answer>,
    saved: Saved,
    wake: mpsc::Sender<Wake>,
    statuses: watch::Receiver<Status>,
    reach: watch::Sender<Reach>,
    /// How often in a row an answer was older than what is known.
    older: u32,
    pause: Duration,
}

impl<S: Server> Poller<S> {
    pub fn new(
        server: S,
        interval: Duration,
        known: Option<Answer>,
        saved: Saved,
        wake: mpsc::Sender<Wake>,
        statuses: watch::Receiver<Status>,
    ) -> (Self, watch::Receiver<Reach>) {
        let (reach, reaching) = watch::channel(Reach::default());
        let pause = FIRST_PAUSE;
        let (older, patience) = (0, interval);
        let poller =
            Self { server, interval, patience, known, saved, wake, statuses, reach, older, pause };
        (poller, reaching)
    }

    /// Asks again at this interval at the latest after failures: a server that is back is to be heard of as
    /// soon as of policies, however seldom one is asked that does not hold questions.
    #[must_use]
    pub fn patient_for(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Asks until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            () = self.ask_on() => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn ask_on(&mut self) {
        // Without a pass it is not known what to ask.
        let looked = |status: &Status| status.pass > 0 && status.held.is_none();
        if self.statuses.wait_for(looked).await.is_err() {
            return;
        }
        let mut answered = false;
        loop {
            let question = self.question(answered);
            let spaces = question.spaces.clone();
            let asked = Instant::now();
            let told = tokio::select! {
                told = self.server.groups(&question) => told,
                () = is_another(self.statuses.clone(), &question) => continue,
            };
            let took = asked.elapsed();
            let heeded = match told {
                Ok(GroupsTold { answer, wait }) => self.heed(&spaces, answer).await.map(|()| wait),
                Err(error) => Err(chain(&error)),
            };
            let looked_in = self.reach.borrow().failure.is_some();
            let pause = match &heeded {
                // Pauses go on to grow until a question that is held is answered.
                Ok(_) if looked_in && question.known.is_some() => LEAST_PAUSE,
                Ok(wait) => self.pause_after(question.wait.is_some(), *wait, took),
                Err(_) => self.pause_after_failure(),
            };
            answered |= heeded.is_ok();
            let failure = heeded.err();
            self.report(Reach { spaces: spaces.clone(), failure });
            self.passed().await;
            tokio::select! {
                () = sleep(pause) => {}
                () = is_another(self.statuses.clone(), &question) => {}
            }
        }
    }

    /// The first question of a life is not held: only an answer says that what is on disk still stands. Nor is
    /// one after a failure, as it tells whether the server is there again.
    fn question(&mut self, answered: bool) -> GroupsQuestion {
        let status = self.statuses.borrow_and_update();
        let spaces = status.spaces.clone();
        let known = self.known.as_ref().filter(|known| known.spaces == spaces);
        let known = known.and_then(|known| known.version.clone()).filter(|_| answered);
        let wait =
            (known.is_some() && self.reach.borrow().failure.is_none()).then_some(follow::HOLD);
        let receipt = known.as_ref().map(|known| words(&status, known));
        GroupsQuestion { spaces, known, wait, receipt }
    }

    /// Waits for the kernel to be told what is known, as the next question says whether it was.
    async fn passed(&self) {
        let Some(known) = &self.known else { return };
        let mut statuses = self.statuses.clone();
        let is_told = |status: &Status| status.held.is_some() || status.version == known.version;
        // What takes longer is not enforced yet, which is a word as good as any other.
        let _ = timeout(PATIENCE, statuses.wait_for(is_told)).await;
    }

    /// Acts on an answer. An error says why it is not enforced.
    async fn heed(
        &mut self,
        spaces: &BTreeSet<String>,
        answer: GroupsAnswer,
    ) -> Result<(), String> {
        let GroupsAnswer::Groups { groups, version } = answer else { return Ok(()) };
        let answer = Answer::after(self.known.as_ref(), spaces.clone(), groups, version);
        if self.known.as_ref().is_some_and(|known| answer.is_older_than(known)) {
            self.older += 1;
            if self.older < SIGHTINGS {
                return Err("the policy server tells of an earlier state than it did".to_owned());
            }
        }
        self.older = 0;
        let unchanged = self.known.as_ref() == Some(&answer);
        if self.wake.send(Wake::Answer(answer.clone())).await.is_err() {
            return Ok(()); // the cycle has ended, and so shall we
        }
        if !unchanged {
            let (saved, kept) = (self.saved.clone(), answer.clone());
            // A panic has been printed already, and the next answer has another try.
            let _ = spawn_blocking(move || saved.store(&kept)).await;
        }
        self.known = Some(answer);
        Ok(())
    }

    /// A server with versions may hold the next question, whatever it did with this one. One that was
    /// asked to hold it and did not, nor promised to, is asked at the interval.
    fn pause_after(
        &mut self,
        asked_to_hold: bool,
        wait: Option<Duration>,
        took: Duration,
    ) -> Duration {
        self.pause = FIRST_PAUSE;
        let versions = self.known.as_ref().is_some_and(|known| known.version.is_some());
        let holds = versions && (!asked_to_hold || wait.is_some() || took > HELD);
        if holds { LEAST_PAUSE.saturating_sub(took) } else { self.interval }
    }

    fn pause_after_failure(&mut self) -> Duration {
        let longest = self.interval.min(self.patience);
        let pause = self.pause.min(longest);
        self.pause = (pause * 2).min(longest);
        pause.mul_f64(0.5 + fastrand::f64())
    }

    fn report(&self, reach: Reach) {
        let now = reach.failure.clone();
        let before = self.reach.send_replace(reach).failure;
        match (before, now) {
            (None, Some(error)) => {
                tracing::warn!(error, "Security groups are not to be had; the rules stay.");
            }
            (Some(_), None) => tracing::info!("Security groups are told again."),
            _ => {}
        }
    }
}

/// What the receipt for `known` says.
fn words(status: &Status, known: &Version) -> ReceiptWords {
    let enforces = status.enforces && status.version.as_ref() == Some(known);
    ReceiptWords { backend: None, error: status.trouble(), watches_only: !enforces }
}

/// Ends when the question must be another: the cell has containers of other spaces, or the kernel has come
/// to enforce what it did not, or the other way round, for more than a moment.
async fn is_another(mut statuses: watch::Receiver<Status>, question: &GroupsQuestion) {
    let GroupsQuestion { spaces, known, wait: _, receipt } = question;
    let has_moved = |status: &Status| status.spaces != *spaces;
    let is_another = |status: &Status| {
        let words = known.as_ref().map(|known| words(status, known));
        has_moved(status) || words != *receipt
    };
    loop {
        // An error means that the cycle has ended; whoever waits here is about to be stopped.
        let Ok(moved) = statuses.wait_for(is_another).await.map(|status| has_moved(&status)) else {
            return std::future::pending().await;
        };
        if moved {
            return;
        }
        sleep(LEAST_PAUSE).await;
        if is_another(&statuses.borrow()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
