//! Polls that wait: answered when what they ask for changes, or when their time is over (design
//! §2.3). A held poll costs a task and a timer, nothing of the database.

use std::{future::pending, pin::pin, sync::Arc, time::Duration};

use policy::Version;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::Metrics,
    snapshot::{
        Snapshot, Standing, Topic,
        feed::{Claim, Feed},
    },
};

/// When the server stops, the polls it holds end within this, one after the other, so that the cells
/// do not come to the next server all at once.
const PARTING: Duration = Duration::from_secs(2);

/// The part of [`PARTING`] each poll adds: few need not take as long as many.
const PARTING_EACH: Duration = Duration::from_millis(1);

/// A question that may wait.
#[derive(Debug)]
pub(crate) struct Poll {
    pub topic: Topic,
    /// The version the caller has.
    pub known: Option<Version>,
    /// How long the caller would like to wait.
    pub wait: Option<Duration>,
}

/// What a poll is answered, of which snapshot.
pub(crate) enum Outcome {
    /// What is asked for, at a version the caller does not have.
    Fresh(Arc<Snapshot>, Version),
    /// Nothing has changed since the version the caller has.
    Unchanged(Arc<Snapshot>, Version),
}

/// What may happen to a poll that is held.
enum Event {
    Woken(Duration),
    CaughtUp,
    TimeIsOver,
    ServerStops,
}

/// Answers at once if something has changed since the version the caller has; else waits until
/// something does, at most as long as the caller would, and not for long beyond the server's shutdown.
pub(crate) async fn hold(
    poll: &Poll,
    feed: &Feed,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> Outcome {
    let Poll { topic, known, wait } = poll;
    let Some(known) = known else { return fresh(feed.snapshot(), poll) };
    let mut deadline = Instant::now() + wait.unwrap_or_default();
    let waiting = feed.waiting();
    let mut registration = None;
    let mut stopping = false;
    loop {
        let snapshot = feed.snapshot();
        let mut is_ahead = false;
        match snapshot.standing(known, topic) {
            Standing::Outdated => return fresh(snapshot, poll),
            Standing::Current => {}
            // Boxed, so that polls of which nothing is to be examined have no room for it.
            Standing::Ahead => match Box::pin(feed.examine(known)).await {
                Claim::Settled => continue,
                Claim::Refuted => return fresh(feed.snapshot(), poll),
                // Whether it is so nobody can say now; what the caller has may be the best there is.
                Claim::Open => is_ahead = true,
            },
        }
        if Instant::now() >= deadline {
            return Outcome::Unchanged(snapshot, known.clone());
        }
        let registration = match &registration {
            Some(registration) => registration,
            None => {
                let first = registration.insert(waiting.register(topic));
                // Of what came between the look and this nobody wakes it.
                if !Arc::ptr_eq(&feed.snapshot(), &snapshot) {
                    continue;
                }
                first
            }
        };
        drop(snapshot);
        // Pinned here, so that those who only pass it on have no room for it.
        let event = pin!(async move {
            // What was passed over on the way to what the caller has wakes nobody.
            let caught_up = async {
                match is_ahead {
                    true => Box::pin(feed.catches_up_with(known.revision)).await,
                    false => pending().await,
                }
            };
            tokio::select! {
                () = caught_up => Event::CaughtUp,
                ago = registration.woken() => Event::Woken(ago),
                () = sleep_until(deadline) => Event::TimeIsOver,
                () = shutdown.cancelled(), if !stopping => Event::ServerStops,
            }
        });
        match metrics.held(event).await {
            Event::Woken(ago) => metrics.woke(ago),
            Event::CaughtUp | Event::TimeIsOver => {}
            Event::ServerStops => {
                stopping = true;
                let held = u32::try_from(waiting.count()).unwrap_or(u32::MAX);
                let parting = PARTING_EACH.saturating_mul(held).min(PARTING);
                deadline = deadline.min(Instant::now() + parting.mul_f64(fastrand::f64()));
            }
        }
    }
}

fn fresh(snapshot: Arc<Snapshot>, Poll { topic, known, wait: _ }: &Poll) -> Outcome {
    let version = snapshot.version_for(topic, known.as_ref());
    Outcome::Fresh(snapshot, version)
}

#[cfg(test)]
mod tests;
