//! Asks the policy server about the apps of this cell, and holds the question open (design §2.3). Whom
//! to ask and when is the [`Follower`]'s to decide; here its news become rules, and rules a receipt.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use policy::{AppGuid, Version};
use policy_client::internal::{
    Follower, News, ReceiptWords,
    follow::{Given, Policies},
};
use service::log::chain;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{answer::Answer, certificate, cycle::Wake, keeper::Keeper, status::Status};

/// How long the next question, and with it the next change, waits for the disk.
const DISK: Duration = Duration::from_secs(2);

/// What became of the last question.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The apps it was about.
    pub apps: BTreeSet<AppGuid>,
    /// Why there was no usable answer.
    pub failure: Option<String>,
    /// Why the server takes what is enforced for no receipt, if it does not.
    pub receipt_refused: Option<String>,
    /// How long it took the last answer that said something new to be enforced.
    pub taken: Option<Taken>,
}

/// An answer that is enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    pub version: Option<Version>,
    /// From its arrival until the kernel held what it asks for.
    pub after: Duration,
}

/// The loop that asks.
pub(crate) struct Poller {
    follower: Follower,
    /// What was given last that could be used, beside which the next costs what it changes.
    last: Answer,
    keeper: Keeper,
    wake: mpsc::Sender<Wake>,
    statuses: watch::Receiver<Status>,
    reach: watch::Sender<Reach>,
    /// What we show the server.
    certificate: Option<PathBuf>,
    /// Whether any question was answered.
    answered: bool,
}

/// Why the kernel enforces nothing newer.
enum Failure {
    /// The server gave no answer of use.
    Server(String),
    /// It did, and a pass was held.
    Here(String),
}

/// What the server is asked, and told.
struct Question {
    apps: BTreeSet<AppGuid>,
    /// What the kernel enforces of these.
    enforced: Option<Version>,
    words: ReceiptWords,
}

impl Poller {
    pub fn new(
        follower: Follower,
        last: Option<Answer>,
        keeper: Keeper,
        wake: mpsc::Sender<Wake>,
        statuses: watch::Receiver<Status>,
    ) -> (Self, watch::Receiver<Reach>) {
        let (reach, reaching) = watch::channel(Reach::default());
        let last = last.unwrap_or_default();
        let (certificate, answered) = (None, false);
        (Self { follower, last, keeper, wake, statuses, reach, certificate, answered }, reaching)
    }

    /// A server that refuses a certificate says nothing of it, but ends the connection: so who has failed to
    /// reach one looks at that in this file, too.
    #[must_use]
    pub fn showing(self, certificate: &Path) -> Self {
        Self { certificate: Some(certificate.to_owned()), ..self }
    }

    fn with_our_certificate(&self, why: String) -> String {
        match self.certificate.as_deref().and_then(certificate::refused_for) {
            Some(fault) => format!("{why}; {fault}"),
            None => why,
        }
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
            let question = Question::of(&self.statuses.borrow_and_update());
            let Question { apps, enforced, words } = &question;
            let news = tokio::select! {
                news = self.follower.ask(apps, enforced.as_ref(), words) => news,
                () = is_another(self.statuses.clone(), &question) => continue,
            };
            if let News::Failed { error, .. } = &news
                && self.follower.has_another()
            {
                let error = chain(error);
                tracing::info!(error, "A policy server gives no usable answer; asking another.");
                continue;
            }
            let (failure, taken) = match self.heed(apps, news).await {
                Ok(taken) => (None, taken),
                Err(Failure::Server(why)) => (Some(self.with_our_certificate(why)), None),
                // What holds a pass is told by who makes it, and is no fault of the server's.
                Err(Failure::Here(why)) => {
                    tracing::debug!(why, "The server's answer is not enforced yet.");
                    (None, None)
                }
            };
            if failure.is_some() {
                self.follower.look_in();
            }
            let taken = taken.or_else(|| self.reach.borrow().taken.clone());
            let receipt_refused = self.follower.receipt_refused().map(str::to_owned);
            self.report(Reach { apps: question.apps, failure, receipt_refused, taken });
        }
    }

    /// Acts on news. An error says why the kernel enforces nothing newer.
    async fn heed(
        &mut self,
        apps: &BTreeSet<AppGuid>,
        news: News,
    ) -> Result<Option<Taken>, Failure> {
        let (policies, version) = match news {
            News::Failed { error, retry_in: _ } => {
                let step = error.next_step(!self.answered);
                let step = step.map(|step| format!("; {step}")).unwrap_or_default();
                return Err(Failure::Server(chain(&error) + &step));
            }
            News::Unchanged => {
                self.answered = true;
                return Ok(None);
            }
            News::Policies { all, version } => (all, version),
        };
        self.answered = true;
        // Until it is known who is here, or was when the server last answered, it is asked so that it hears
        // of our trouble; an answer about nobody would take everybody's rules away.
        if apps.is_empty() && !self.statuses.borrow().has_looked {
            self.follower.not_enforced();
            return Err(Failure::Here("it is not known who is here".to_owned()));
        }
        let came = self.follower.answered();
        let taken = self.take(apps.clone(), policies, version.clone()).await;
        if taken.is_err() {
            self.follower.not_enforced();
        }
        let after = taken?.zip(came).map(|(enforced, came)| enforced - came);
        Ok(after.map(|after| Taken { version, after }))
    }

    /// Hands a new answer to the cycle and waits until the kernel enforces it. Only then is it kept, so
    /// that no rule waits for the disk; the receipt, which the next question is, waits for both, if the disk is
    /// not much too slow: what is confirmed must not be undone by a kill. Returns when the kernel enforced it, unless the agent is
    /// about to end.
    async fn take(
        &mut self,
        apps: BTreeSet<AppGuid>,
        policies: Policies,
        version: Option<Version>,
    ) -> Result<Option<Instant>, Failure> {
        let given = Given { apps, policies, version };
        let answer = self.last.then(&given).map_err(|error| Failure::Server(chain(&error)))?;
        self.last = answer.clone();
        let mut statuses = self.statuses.clone();
        let before = statuses.borrow().pass;
        if self.wake.send(Wake::Answer(answer.clone())).await.is_err() {
            return Ok(None); // the cycle has ended, and so shall we
        }
        let settled = |status: &Status| {
            let enforced = status.enforced.as_ref();
            status.held.is_none()
                && enforced.is_some_and(|e| e.apps == given.apps && e.version == given.version)
        };
        // A pass may have been under way already, hence two; one that is held is an answer as well.
        let passed = |status: &Status| settled(status) || status.pass > before + 1;
        match statuses.wait_for(passed).await {
            Ok(status) if settled(&status) => {}
            Ok(status) => {
                let held = status.held.clone();
                return Err(Failure::Here(held.unwrap_or_else(|| "not enforced".into())));
            }
            Err(_) => return Ok(None),
        }
        let enforced = Instant::now();
        self.keeper.keep(answer);
        if timeout(DISK, self.keeper.kept()).await.is_err() {
            tracing::warn!("What is enforced cannot be kept on disk; a restart may undo it.");
        }
        Ok(Some(enforced))
    }

    fn report(&self, reach: Reach) {
        let (now, refused) = (reach.failure.clone(), reach.receipt_refused.clone());
        let before = self.reach.send_replace(reach);
        if before.receipt_refused != refused {
            match refused {
                Some(why) => tracing::warn!(
                    why,
                    "The policy server confirms nothing of this cell; give each cell a cell_id of its own."
                ),
                None => tracing::info!("The policy server confirms what this cell enforces again."),
            }
        }
        match (before.failure, now) {
            (None, Some(error)) => {
                tracing::warn!(error, "The policy server gives no usable answer; the rules stay.");
            }
            (Some(_), None) => tracing::info!("The policy server answers again."),
            _ => {}
        }
    }
}

impl Question {
    /// About the apps here now, with the version the kernel enforces of them, and why it is held if it is.
    fn of(status: &Status) -> Self {
        let enforced = status.receipt_for(&status.apps).cloned();
        let words = ReceiptWords {
            backend: Some(status.backend),
            error: status.trouble(),
            watches_only: status.claims_nothing(),
        };
        Self { apps: status.apps.clone(), enforced, words }
    }
}

/// Ends when the question must be another: the cell has other apps, or its kernel another trouble.
async fn is_another(mut statuses: watch::Receiver<Status>, question: &Question) {
    let Question { apps, enforced: _, words } = question;
    let other = |status: &Status| status.apps != *apps || status.trouble() != words.error;
    // An error means that the cycle has ended; whoever waits here is about to be stopped.
    if statuses.wait_for(other).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
