//! Keeps what the server said last on disk, beside the way to the kernel: a slow disk delays no rule.
//!
//! An agent killed between the two enforces, at its next start, what it had kept before, until the
//! server has answered; with the server at hand that is the blink of an eye.

use tokio::{sync::watch, task::spawn_blocking};

use crate::{answer::Answer, saved::Saved};

/// Where to leave what is to be kept. When it is dropped, [`run`] ends, the last having been kept.
pub(crate) struct Keeper(watch::Sender<Option<Answer>>);

impl Keeper {
    /// Keeps what comes after `kept`, which is on disk.
    pub fn after(kept: Option<Answer>) -> (Self, watch::Receiver<Option<Answer>>) {
        let (tell, latest) = watch::channel(kept);
        (Self(tell), latest)
    }

    /// Has `answer` kept, soon, unless it is already; whatever was left before and not kept yet need
    /// not be any more.
    pub fn keep(&self, answer: Answer) {
        self.0.send_if_modified(|latest| {
            let new = latest.as_ref() != Some(&answer);
            *latest = Some(answer);
            new
        });
    }
}

/// Keeps one after the other.
pub(crate) async fn run(mut saved: Saved, mut latest: watch::Receiver<Option<Answer>>) {
    while latest.changed().await.is_ok() {
        let Some(answer) = latest.borrow_and_update().clone() else { continue };
        let store = move || {
            saved.store(&answer);
            saved
        };
        match spawn_blocking(store).await {
            Ok(back) => saved = back,
            // A panic has been printed already.
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use policy_client::internal::follow::{Given, Policies};

    use super::*;

    fn answer(at: &str) -> Answer {
        let apps = ["web".parse().unwrap()].into();
        let given = Given { apps, policies: Policies::default(), version: at.parse().ok() };
        Answer::check(&given).unwrap()
    }

    #[tokio::test]
    async fn the_last_answer_is_on_disk_when_the_agent_has_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let mut saved = Saved::at(Some(folder.path().join("answer.json")));
        let (keeper, latest) = Keeper::after(None);
        let running = tokio::spawn(run(saved.clone(), latest));
        for at in ["life.7", "life.8", "life.9"] {
            keeper.keep(answer(at));
        }
        drop(keeper);
        running.await.unwrap();
        assert_eq!(saved.load(), Some(answer("life.9")));
    }

    #[tokio::test]
    async fn what_is_on_disk_is_not_written_again() {
        let (keeper, latest) = Keeper::after(Some(answer("life.7")));
        keeper.keep(answer("life.7"));
        assert!(!latest.has_changed().unwrap());
        keeper.keep(answer("life.8"));
        assert!(latest.has_changed().unwrap());
    }
}
