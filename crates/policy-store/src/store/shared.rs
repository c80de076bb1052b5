//! A question that many ask at the same time. As writers share transactions, so do those who ask:
//! while one is being answered the others wait, and the next answer is for all of them. A connection
//! each would cost the database more than the question does.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Mutex;

use crate::StoreError;

/// Answers to one question.
pub(super) struct Shared<T> {
    /// How often the question was put.
    put: AtomicU64,
    last: Mutex<Option<Answer<T>>>,
}

struct Answer<T> {
    /// It was the so-manieth time that the question was put.
    number: u64,
    told: Result<T, Arc<StoreError>>,
}

impl<T: Clone> Shared<T> {
    pub(super) fn new() -> Self {
        Self { put: AtomicU64::new(0), last: Mutex::new(None) }
    }

    /// The answer to `question`, put after this call by whomever. Dropped while it puts the question
    /// for others, too, it leaves it to the next of them.
    pub(super) async fn ask(
        &self,
        question: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let before = self.put.load(Ordering::SeqCst);
        let mut last = self.last.lock().await;
        let answer = match last.take() {
            Some(answer) if answer.number > before => answer,
            _ => {
                let number = 1 + self.put.fetch_add(1, Ordering::SeqCst);
                Answer { number, told: question.await.map_err(Arc::new) }
            }
        };
        let told = answer.told.clone();
        *last = Some(answer);
        told.map_err(StoreError::Together)
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::pending, time::Duration};

    use tokio::time::{sleep, timeout};

    use super::*;

    /// A question that takes a second; the answer is how often it was put.
    async fn slow(put: &Cell<u32>) -> Result<u32, StoreError> {
        put.set(put.get() + 1);
        let answer = put.get();
        sleep(Duration::from_secs(1)).await;
        Ok(answer)
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_come_while_one_is_answered_share_the_next_answer() {
        let (shared, put) = (Shared::new(), Cell::new(0));
        let late = async || {
            sleep(Duration::from_millis(500)).await;
            shared.ask(slow(&put)).await.unwrap()
        };
        let (first, one, two, three) = tokio::join!(shared.ask(slow(&put)), late(), late(), late());
        assert_eq!(
            (first.unwrap(), one, two, three),
            (1, 2, 2, 2),
            "not what was asked before them"
        );
        assert_eq!(shared.ask(slow(&put)).await.unwrap(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_everyones_who_waits_for_it_and_nobodys_later() {
        let shared = Shared::<()>::new();
        let failing = async || {
            shared
                .ask(async {
                    sleep(Duration::from_secs(3)).await;
                    Err(StoreError::Closed)
                })
                .await
                .unwrap_err()
        };
        let began = tokio::time::Instant::now();
        tokio::join!(failing(), failing(), failing(), failing());
        assert_eq!(began.elapsed(), Duration::from_secs(6), "two questions, not four");
        shared.ask(async { Ok(()) }).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_leaves_leaves_the_question_to_the_next() {
        let (shared, put) = (Shared::new(), Cell::new(0));
        let leaving = timeout(Duration::from_millis(10), shared.ask(pending()));
        let (left, answer) = tokio::join!(leaving, shared.ask(slow(&put)));
        left.unwrap_err();
        assert_eq!(answer.unwrap(), 1);
    }
}
