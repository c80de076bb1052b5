//! Requests that come while a transaction is under way share the next one. The lock that all writers
//! take makes them queue anyway (spec/policy-server.md §9.3); so they queue here, where it is cheap,
//! and one commit serves all of them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use policy::{Policy, Version};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::sleep,
};

use super::{
    Ledger,
    policies::{Kind, Order, carry_out},
};
use crate::{
    Actor, StoreError,
    error::Transient,
    session::{Backend, Session},
};

/// At most this many requests share a transaction,
const MOST_REQUESTS: usize = 256;

/// and no further request joins one that has this many policies.
const MOST_POLICIES: usize = 10_000;

/// How often a transaction is tried that the database gives up because of another.
const ATTEMPTS: u32 = 5;

/// The pause before the second attempt; it doubles with each.
const PAUSE: Duration = Duration::from_millis(5);

/// Takes requests and answers them.
pub(super) struct Writer {
    /// `None` once it was told to stop.
    running: Mutex<Option<(mpsc::Sender<Request>, JoinHandle<()>)>>,
}

struct Request {
    order: Order,
    reply: oneshot::Sender<Result<Version, StoreError>>,
}

impl Writer {
    pub(super) fn start<B: Backend>(ledger: Arc<Ledger<B>>) -> Self {
        let (queue, requests) = mpsc::channel(4 * MOST_REQUESTS);
        let task = tokio::spawn(serve(ledger, requests));
        Self { running: Mutex::new(Some((queue, task))) }
    }

    /// The version that holds what is asked for.
    pub(super) async fn submit(
        &self,
        kind: Kind,
        policies: &[Policy],
        actor: &Actor,
    ) -> Result<Version, StoreError> {
        let order = Order { kind, policies: policies.to_vec(), actor: actor.clone() };
        let (reply, answer) = oneshot::channel();
        let queue =
            self.lock().as_ref().map(|(queue, _)| queue.clone()).ok_or(StoreError::Closed)?;
        queue.send(Request { order, reply }).await.map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Takes no more requests, and returns when those taken are answered.
    pub(super) async fn stop(&self) {
        let running = self.lock().take();
        if let Some((queue, task)) = running {
            drop(queue);
            if let Err(error) = task.await
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }

    /// A panic elsewhere leaves it whole: it is only ever taken.
    fn lock(&self) -> MutexGuard<'_, Option<(mpsc::Sender<Request>, JoinHandle<()>)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve<B: Backend>(ledger: Arc<Ledger<B>>, mut requests: mpsc::Receiver<Request>) {
    while let Some(first) = requests.recv().await {
        let mut batch = vec![first];
        let mut policies = batch[0].order.policies.len();
        while batch.len() < MOST_REQUESTS && policies < MOST_POLICIES {
            let Ok(next) = requests.try_recv() else { break };
            policies += next.order.policies.len();
            batch.push(next);
        }
        answer(&ledger, batch).await;
    }
}

/// Carries out a batch; if it fails because of one of its requests, each alone.
async fn answer<B: Backend>(ledger: &Ledger<B>, batch: Vec<Request>) {
    let orders: Vec<&Order> = batch.iter().map(|request| &request.order).collect();
    match commit(ledger, &orders).await {
        Ok(versions) => {
            for (request, version) in batch.into_iter().zip(versions) {
                request.tell(Ok(version));
            }
        }
        Err(error) if batch.len() > 1 && error.may_be_one_requests_fault() => {
            let mut waiting = VecDeque::from(batch);
            while let Some(request) = waiting.pop_front() {
                let alone = commit(ledger, &[&request.order]).await;
                settle(request, alone.map(|mut versions| versions.remove(0)), &mut waiting);
            }
        }
        Err(error) => share(error, batch),
    }
}

/// Tells how `request` ended alone. If the reason is not its own, those still `waiting` end like it:
/// where the database has gone away meanwhile, hundreds would each wait for it in turn, and so would
/// all who come after them.
fn settle(request: Request, alone: Result<Version, StoreError>, waiting: &mut VecDeque<Request>) {
    match alone {
        Err(error) if !error.may_be_one_requests_fault() => {
            let all = std::iter::once(request).chain(waiting.drain(..)).collect();
            share(error, all);
        }
        ended => request.tell(ended),
    }
}

/// Tells all of `batch` why nothing came of it.
fn share(error: StoreError, mut batch: Vec<Request>) {
    if batch.len() == 1 {
        return batch.remove(0).tell(Err(error));
    }
    let error = Arc::new(error);
    for request in batch {
        request.tell(Err(StoreError::Together(error.clone())));
    }
}

/// One transaction, tried again when it was given up in favour of another.
async fn commit<B: Backend>(
    ledger: &Ledger<B>,
    orders: &[&Order],
) -> Result<Vec<Version>, StoreError> {
    persistently(|| {
        ledger.within("changing policies", async {
            let _turn = ledger.turn.lock().await;
            let mut session = ledger.begin().await?;
            let versions = carry_out(&mut session, &ledger.rules, orders).await?;
            session.commit().await?;
            Ok(versions)
        })
    })
    .await
}

/// The result of `work`, tried again as long as the database asks for that.
pub(super) async fn persistently<T, E: Transient, Work>(work: impl Fn() -> Work) -> Result<T, E>
where
    Work: Future<Output = Result<T, E>>,
{
    for attempt in 0..ATTEMPTS - 1 {
        match work().await {
            Err(error) if error.asks_for_another_attempt() => {
                sleep(PAUSE * 2u32.pow(attempt)).await;
            }
            result => return result,
        }
    }
    work().await
}

impl Request {
    /// Whoever asked may have hung up.
    fn tell(self, result: Result<Version, StoreError>) {
        let _ = self.reply.send(result);
    }
}

#[cfg(test)]
mod tests {
    use policy::{Life, Revision};

    use super::*;

    type Answer = oneshot::Receiver<Result<Version, StoreError>>;

    fn batch(requests: usize) -> (Vec<Request>, Vec<Answer>) {
        let request = |_| {
            let (reply, answer) = oneshot::channel();
            let actor = Actor::system("test");
            let order = Order { kind: Kind::Create, policies: Vec::new(), actor };
            (Request { order, reply }, answer)
        };
        (0..requests).map(request).unzip()
    }

    /// What becomes of requests whose attempts, one after the other, end like this; and how many
    /// attempts it takes.
    async fn told(ends: &[fn() -> Result<Version, StoreError>]) -> (Vec<String>, usize) {
        let (batch, answers) = batch(ends.len());
        let (mut waiting, mut attempts) = (VecDeque::from(batch), 0);
        while let Some(request) = waiting.pop_front() {
            settle(request, ends[attempts](), &mut waiting);
            attempts += 1;
        }
        let mut told = Vec::new();
        for answer in answers {
            let told_one = answer.await.unwrap();
            told.push(told_one.map_or_else(|error| error.to_string(), |it| it.to_string()));
        }
        (told, attempts)
    }

    fn done() -> Result<Version, StoreError> {
        Ok(Version { life: Life::new("life").unwrap(), revision: Revision(7) })
    }

    fn full() -> Result<Version, StoreError> {
        Err(StoreError::NoTagLeft)
    }

    fn away() -> Result<Version, StoreError> {
        Err(StoreError::TooSlow { doing: "changing policies" })
    }

    #[tokio::test]
    async fn who_is_to_blame_alone_is_refused_alone() {
        let told = told(&[done, full, done]).await;
        let full = "failed to find available tag";
        assert_eq!(told, (vec!["life.7".into(), full.into(), "life.7".into()], 3));
    }

    #[tokio::test]
    async fn a_database_that_is_away_is_waited_for_once() {
        let (told, attempts) = told(&[done, away, done, done]).await;
        let away = "changing policies: the database did not answer in time";
        assert_eq!(
            (told, attempts),
            (vec!["life.7".into(), away.into(), away.into(), away.into()], 2)
        );
    }
}
