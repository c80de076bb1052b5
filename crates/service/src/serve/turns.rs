//! Turns on the processor. Thousands of callers may come at once, when a server they all hung off is
//! gone; while they shake hands, those who are connected must not wait behind all of them.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    thread,
};

use tokio::{sync::Semaphore, task::yield_now};
use tokio_util::sync::PollSemaphore;

/// Turns for each processor. Handshakes compute for about a millisecond and then wait for the network,
/// so a few are enough to keep a processor busy.
const EACH: usize = 2;

/// How many may be at work at once.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Semaphore>);

impl Turns {
    /// As many as suit this machine.
    pub fn of_this_machine() -> Self {
        // Where it is not told how many there are, one is a safe guess.
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self::new(EACH * processors)
    }

    fn new(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }

    /// `work`, each step of which waits for a turn. Nobody has a turn while waiting for the network, so
    /// callers who say nothing delay no others.
    pub async fn take<Work: Future>(&self, work: Work) -> Work::Output {
        let work = pin!(work);
        InTurns { work, turns: PollSemaphore::new(self.0.clone()) }.await
    }
}

struct InTurns<'a, Work> {
    work: Pin<&'a mut Work>,
    turns: PollSemaphore,
}

impl<Work: Future> Future for InTurns<'_, Work> {
    type Output = Work::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The semaphore is never closed, so there is always a turn.
        let turn = ready!(self.turns.poll_acquire(context));
        let polled = self.work.as_mut().poll(context);
        // It ends when everybody who is ready now has had the processor. Ended here, it would be free
        // whenever the next in the runtime's queue asks, and hold up nobody.
        tokio::spawn(async move {
            yield_now().await;
            drop(turn);
        });
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::{task::JoinHandle, time::Duration};

    use super::*;

    #[tokio::test]
    async fn others_run_while_many_wait_for_their_turn() {
        let (turns, steps) = (Turns::new(2), Arc::new(AtomicUsize::new(0)));
        let many: Vec<_> = (0..200)
            .map(|_| {
                let (turns, steps) = (turns.clone(), steps.clone());
                tokio::spawn(async move {
                    let work = async {
                        for _ in 0..5 {
                            steps.fetch_add(1, Ordering::Relaxed);
                            yield_now().await;
                        }
                    };
                    turns.take(work).await;
                })
            })
            .collect();
        // The runtime asks tasks in turn, and the test itself less often.
        let others = tokio::spawn(async move {
            let (mut before, mut most) = (0, 0);
            while !many.iter().all(JoinHandle::is_finished) {
                yield_now().await;
                let now = steps.load(Ordering::Relaxed);
                (before, most) = (now, most.max(now - before));
            }
            (before, most)
        });
        let (steps, most) = others.await.unwrap();
        assert_eq!(steps, 1000);
        assert!(most <= 8, "{most} steps were taken while somebody else waited");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_the_network_has_no_turn() {
        let turns = Turns::new(1);
        let silent = turns.clone();
        let silent = tokio::spawn(async move { silent.take(std::future::pending::<()>()).await });
        yield_now().await;
        let prompt = turns.take(async { "shaken" });
        assert_eq!(tokio::time::timeout(Duration::from_secs(1), prompt).await, Ok("shaken"));
        silent.abort();
    }
}
