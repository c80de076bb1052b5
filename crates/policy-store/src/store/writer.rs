//! Requests that come while a transaction is under way share the next one. The lock that all writers
//! take makes them queue anyway (spec/policy-server.md §9.3); so they queue here, where it is cheap,
//! and one commit serves all of them.

use std::{
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
            for request in batch {
                let alone = commit(ledger, &[&request.order]).await;
                request.tell(alone.map(|mut versions| versions.remove(0)));
            }
        }
        Err(error) => share(error, batch),
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
