//! Following the policies of some apps: one question after the other, to whichever server answers.
//!
//! ```text
//! course.rs   which server is asked, and how soon after a failure
//! hold.rs     how long the question may be held, learned from what proxies do to it
//! given.rs    what the caller has, beside which an answer is newer, older, or a change
//! ```
//!
//! Those three decide, without a clock or a socket; [`Follower`] asks.

mod course;
mod given;
mod hold;
mod pause;

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use fastrand::Rng;
use policy::{AppGuid, Version, wire::delta::Delta};
use tokio::time::{Instant, sleep_until};

use super::{Answer, Client, ClientError, Question, ReceiptWords, Told};
use course::Course;
use given::is_later;
pub use given::{Given, Policies, policies};
use hold::{HELD, Hold, Kept};
use pause::{Backoff, between};

/// How long servers are asked to hold a question, unless something on the way ends it sooner.
pub const HOLD: Duration = Duration::from_secs(55);

/// An older answer is believed when it comes for the third time, half a second to three seconds later.
const SIGHTINGS: u32 = 3;

/// Between two sightings; the second pause is twice the first.
const SIGHT_AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(1));

/// The first pause after the caller could not act on what it was given.
const FIRST_RELUCTANCE: Duration = Duration::from_millis(100);

/// One policy server, as a follower sees it.
pub trait Server {
    /// One question and its answer.
    fn told(&self, question: &Question) -> impl Future<Output = Result<Told, ClientError>> + Send;
}

impl Server for Client {
    async fn told(&self, question: &Question) -> Result<Told, ClientError> {
        Self::told(self, question).await
    }
}

/// How to follow.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who follows: cells begin at different servers, each always at the same.
    pub cell: String,
    /// How long servers are asked to hold a question at most; [`HOLD`].
    pub hold: Duration,
    /// How often a server is asked that does not hold questions; also about the longest pause after
    /// failures.
    pub poll_interval: Duration,
}

/// Asks for the policies of some apps again and again, and loses none of them to a server that is away,
/// a proxy that cuts, or a change that was told wrong.
#[derive(Debug)]
pub struct Follower<S = Client> {
    servers: Vec<S>,
    course: Course,
    hold: Hold,
    given: Option<Given>,
    /// How often in a row an answer was older than what was given.
    older: u32,
    /// Changes were told that cannot be: nothing is claimed until the whole has come.
    doubt: bool,
    reluctance: Backoff,
    rest: Option<Rest>,
    /// Until the next answer, questions are not held.
    looks_in: bool,
    /// Why the last answer says that receipts are none, if it does.
    refused: Option<String>,
    /// When the last answer had come, or failed to.
    answered: Option<Instant>,
    counts: Counts,
    poll_interval: Duration,
    chance: Rng,
}

/// No question about the same apps before that.
#[derive(Debug)]
struct Rest {
    apps: BTreeSet<AppGuid>,
    until: Instant,
}

/// What a question brought.
#[derive(Debug)]
pub enum News {
    /// The policies are others.
    Policies {
        /// All that concern the apps.
        all: Policies,
        /// What the kernel then enforces; `None` from a server without versions, whose answers are
        /// handed on whether or not they are new.
        version: Option<Version>,
    },
    /// What was given last, or is enforced, stands.
    Unchanged,
    /// Nothing is known that was not before.
    Failed {
        /// Why.
        error: ClientError,
        /// After this, [`Follower::ask`] asks the next server, or the same again. It waits by itself.
        retry_in: Duration,
    },
}

/// What has happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Whole answers.
    pub wholes: u64,
    /// Bytes of their bodies.
    pub whole_bytes: u64,
    /// Answers that told changes only.
    pub deltas: u64,
    /// Bytes of their bodies.
    pub delta_bytes: u64,
    /// Changes that could not be used, so that the whole was asked for.
    pub unusable_deltas: u64,
    /// Questions that came to nothing.
    pub failures: u64,
    /// Those among them that somebody had taken and gave up before their time.
    pub cuts: u64,
    /// Questions a server gave back before their time, being about to stop.
    pub given_back: u64,
    /// Answers that were older than what was given.
    pub older: u64,
}

impl<S: Server> Follower<S> {
    /// Follows on `servers`, of which there must be one at least.
    pub fn new(servers: Vec<S>, settings: Settings) -> Self {
        Self::with_chance(servers, settings, Rng::new())
    }

    fn with_chance(servers: Vec<S>, settings: Settings, chance: Rng) -> Self {
        let Settings { cell, hold, poll_interval } = settings;
        assert!(!servers.is_empty(), "there is a server to follow");
        Self {
            course: Course::new(servers.len(), home(&cell, servers.len()), poll_interval),
            servers,
            hold: Hold::new(hold),
            given: None,
            older: 0,
            doubt: false,
            reluctance: Backoff::new(FIRST_RELUCTANCE, poll_interval),
            rest: None,
            looks_in: false,
            refused: None,
            answered: None,
            counts: Counts::default(),
            poll_interval,
            chance,
        }
    }

    /// Begins with what the caller has kept from an earlier life, so that changes to it are enough.
    pub fn resume(&mut self, given: Given) {
        self.given = Some(given);
    }

    /// One question, after the pause that is due. `enforced` is what the kernel holds of all of these
    /// apps, and the receipt the server gets. Asking about other apps than before needs no pause.
    ///
    /// Dropping the future before it ends takes the question back and changes nothing.
    pub async fn ask(
        &mut self,
        apps: &BTreeSet<AppGuid>,
        enforced: Option<&Version>,
        receipt: &ReceiptWords,
    ) -> News {
        if let Some(Rest { apps: same, until }) = &self.rest
            && same == apps
        {
            sleep_until(*until).await;
        }
        loop {
            let question = self.question(apps, enforced, receipt);
            let asked = Instant::now();
            let server = self.course.server(asked);
            let told = self.servers[server].told(&question).await;
            let answered = Instant::now();
            self.answered = Some(answered);
            if let Some(news) = self.digest(&question, told, asked, answered) {
                return news;
            }
        }
    }

    /// The caller cannot act on what it was given last: the same answer would not help, so there will
    /// be a pause, which is returned.
    pub fn not_enforced(&mut self) -> Duration {
        let pause = self.reluctance.failed(&mut self.chance);
        if let Some(rest) = &mut self.rest {
            rest.until = rest.until.max(Instant::now() + pause);
        }
        pause
    }

    /// Has questions not be held until one is answered: for who wants to know at once whether a server that
    /// failed is there again.
    pub fn look_in(&mut self) {
        self.looks_in = true;
    }

    /// Whether there is a server that has not failed since the last answer: after a failure, the next
    /// question may have better luck at once.
    pub fn has_another(&self) -> bool {
        self.course.is_open()
    }

    /// Why the server takes what it is told for no receipt, by its last answer.
    pub fn receipt_refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// When the last answer had come; what is done with it since is the caller's time.
    pub fn answered(&self) -> Option<Instant> {
        self.answered
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn question(
        &mut self,
        apps: &BTreeSet<AppGuid>,
        enforced: Option<&Version>,
        receipt: &ReceiptWords,
    ) -> Question {
        let known = enforced.filter(|_| !self.doubt);
        let is_base =
            |known| self.given.as_ref().is_some_and(|given| given.is_base_of(apps, known));
        let changes = known.is_some_and(is_base);
        if enforced.is_some() && self.given.as_ref().is_some_and(|g| g.version.as_ref() == enforced)
        {
            self.reluctance.succeeded();
        }
        Question {
            apps: apps.clone(),
            known: known.cloned(),
            wait: self.hold.wait().filter(|_| !self.looks_in),
            receipt: receipt.clone(),
            changes,
        }
    }

    /// What an answer means, and when the next question is due. `None`: now, before there are news.
    fn digest(
        &mut self,
        question: &Question,
        told: Result<Told, ClientError>,
        asked: Instant,
        now: Instant,
    ) -> Option<News> {
        let took = now - asked;
        let looked_in = self.looks_in && question.wait.is_none();
        self.looks_in &= told.is_err();
        // It was not to be held, so nothing is learned of holds.
        if told.is_ok() && question.wait.is_none() && !looked_in {
            self.hold.kept();
        }
        if let Ok(told) = &told {
            self.refused.clone_from(&told.refused);
        }
        let rest = told.as_ref().map_or(Duration::ZERO, |told| told.rest);
        let (news, pause) = match told {
            Ok(Told { answer: Answer::NotModified(_), .. }) if looked_in => {
                // Pauses go on to grow until a question that is held is answered, or something is new: one that
                // answers short questions may be unable to hold any.
                self.older = 0;
                (News::Unchanged, Duration::ZERO)
            }
            Ok(Told { answer: Answer::NotModified(_), wait, .. }) => {
                (News::Unchanged, self.unchanged(Kept::of(question.wait, wait, took), now))
            }
            Ok(Told { answer: Answer::Policies { policies, version }, bytes, .. }) => {
                self.counts.wholes += 1;
                self.counts.whole_bytes += count(bytes);
                let policies = given::policies(policies);
                self.whole(question, Given { apps: question.apps.clone(), policies, version }, now)
            }
            Ok(Told { answer: Answer::Changes { delta, version }, bytes, .. }) => {
                self.counts.delta_bytes += count(bytes);
                self.changes(question, delta, version)?
            }
            Err(ClientError::Changes { request: _, source }) if question.changes => {
                return self.doubted(&source);
            }
            Err(error) => self.failed(question, error, took, now),
        };
        let pause = pause.max(rest.mul_f64(self.chance.f64()));
        self.rest = Some(Rest { apps: question.apps.clone(), until: now + pause });
        Some(news)
    }

    fn unchanged(&mut self, kept: Kept, now: Instant) -> Duration {
        if kept == Kept::GivenBack {
            self.counts.given_back += 1;
            return self.course.failed(now, &mut self.chance);
        }
        self.course.answered();
        self.older = 0;
        match kept {
            Kept::Whole => {
                self.hold.kept();
                Duration::ZERO
            }
            _ => self.one_interval(),
        }
    }

    fn whole(&mut self, question: &Question, new: Given, now: Instant) -> (News, Duration) {
        self.course.answered();
        let known = question.known.as_ref();
        if self.is_older(known, &new) {
            self.counts.older += 1;
            self.older += 1;
            if self.older < SIGHTINGS {
                let pause = between(SIGHT_AGAIN.0, SIGHT_AGAIN.1, &mut self.chance);
                // Another server may know what came since; one that lost its database does not.
                self.course.failed(now, &mut self.chance);
                return (News::Unchanged, pause * self.older);
            }
            let (version, ours) = (shown(new.version.as_ref()), shown(known));
            tracing::warn!(
                version,
                ours,
                "The policy server stands by an older state; following it."
            );
        } else {
            self.older = 0;
        }
        let again = known.is_some() && new.version.as_ref() == known;
        if again && self.given.as_ref() == Some(&new) {
            // It did not recognise its own version; asking at once would only repeat this.
            return (News::Unchanged, self.one_interval());
        }
        let pause = match (&new.version, &self.given) {
            (None, _) => self.one_interval(),
            (Some(_), _) if again => self.one_interval(),
            // Two databases behind one address would otherwise be a race between them.
            (Some(_), Some(before)) if before.is_of_another_life(&new) => {
                between(SIGHT_AGAIN.0, SIGHT_AGAIN.1, &mut self.chance)
            }
            _ => Duration::ZERO,
        };
        (self.give(new), pause)
    }

    fn is_older(&self, known: Option<&Version>, new: &Given) -> bool {
        let beside_enforced =
            || known.zip(new.version.as_ref()).is_some_and(|(known, new)| is_later(known, new));
        self.given.as_ref().is_some_and(|given| given.is_later_than(new)) || beside_enforced()
    }

    /// `None`: they cannot be used, and the whole is to be asked for.
    fn changes(
        &mut self,
        question: &Question,
        delta: Delta,
        version: Version,
    ) -> Option<(News, Duration)> {
        let base = self.given.as_ref()?;
        match base.changed(&question.apps, delta, version) {
            Ok(new) => {
                self.course.answered();
                self.counts.deltas += 1;
                Some((self.give(new), Duration::ZERO))
            }
            Err(error) => {
                self.doubted(&error);
                None
            }
        }
    }

    fn doubted(&mut self, error: &dyn std::error::Error) -> Option<News> {
        self.counts.unusable_deltas += 1;
        self.doubt = true;
        tracing::warn!(%error, "Changes of policies cannot be used; asking for the whole.");
        None
    }

    fn give(&mut self, new: Given) -> News {
        self.older = 0;
        self.doubt = false;
        let news = News::Policies { all: new.policies.clone(), version: new.version.clone() };
        self.given = Some(new);
        news
    }

    fn failed(
        &mut self,
        question: &Question,
        error: ClientError,
        took: Duration,
        now: Instant,
    ) -> (News, Duration) {
        self.counts.failures += 1;
        if question.wait.is_some() && took >= HELD && error.is_cut_short() {
            self.counts.cuts += 1;
            self.hold.cut();
        }
        let retry_in = self.course.failed(now, &mut self.chance);
        (News::Failed { error, retry_in }, retry_in)
    }

    /// Until a server that does not hold questions is asked again.
    fn one_interval(&mut self) -> Duration {
        between(self.poll_interval / 2, self.poll_interval, &mut self.chance)
    }
}

/// Where `cell` belongs: always the same of `servers`, and every server about as many cells.
fn home(cell: &str, servers: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    cell.hash(&mut hasher);
    let of = u64::try_from(servers).expect("there are not so many");
    usize::try_from(hasher.finish() % of).expect("it is below the number of servers")
}

fn shown(version: Option<&Version>) -> Option<String> {
    version.map(ToString::to_string)
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
