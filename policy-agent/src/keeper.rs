//! Keeps what the server said last on disk, beside the way to the kernel: a slow disk delays no rule. It
//! delays the receipt: what is confirmed is enforced by an agent that is killed and started, too.
//!
//! An agent killed between the two enforces, at its next start, what it had kept before, until the
//! server has answered; with the server at hand that is the blink of an eye.

use tokio::{sync::watch, task::spawn_blocking};

use crate::{answer::Answer, saved::Saved};

/// Where to leave what is to be kept. When it is dropped, [`run`] ends, the last having been kept.
pub(crate) struct Keeper {
    left: watch::Sender<Option<Answer>>,
    kept: watch::Receiver<Option<Answer>>,
}

/// The other end.
pub(crate) struct Latest {
    left: watch::Receiver<Option<Answer>>,
    kept: watch::Sender<Option<Answer>>,
    failure: watch::Sender<Option<String>>,
}

impl Keeper {
    /// Keeps what comes after `kept`, which is on disk.
    pub fn after(kept: Option<Answer>) -> (Self, Latest) {
        let (tell, left) = watch::channel(kept.clone());
        let (done, kept) = watch::channel(kept);
        (Self { left: tell, kept }, Latest { left, kept: done, failure: watch::Sender::new(None) })
    }

    /// Has `answer` kept, soon, unless it is already; whatever was left before and not kept yet need
    /// not be any more.
    pub fn keep(&self, answer: Answer) {
        self.left.send_if_modified(|latest| {
            let new = latest.as_ref() != Some(&answer);
            *latest = Some(answer);
            new
        });
    }

    /// Returns once what was left last is on disk, or could not be kept.
    pub async fn kept(&mut self) {
        let left = self.left.borrow().clone();
        // Nobody keeps anything any more when the agent is about to end.
        let _ = self.kept.wait_for(|kept| *kept == left).await;
    }
}

impl Latest {
    /// What was left last.
    pub fn told(&self) -> watch::Receiver<Option<Answer>> {
        self.left.clone()
    }

    /// Why what is enforced is not on disk, or will hardly be, if so.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.subscribe()
    }
}

/// Keeps one after the other.
pub(crate) async fn run(mut saved: Saved, latest: Latest) {
    let Latest { mut left, kept, failure } = latest;
    if let Some(why) = saved.failure() {
        tracing::warn!(
            error = why,
            "What is enforced cannot be kept on disk: an agent that is started while the server is away would not know it."
        );
        failure.send_replace(Some(why));
    }
    while left.changed().await.is_ok() {
        let Some(answer) = left.borrow_and_update().clone() else { continue };
        let (mut keeping, keep) = (saved.clone(), answer.clone());
        let store = move || {
            keeping.store(&keep);
            keeping
        };
        // A panic has been printed already, and the next answer has another try.
        if let Ok(stored) = spawn_blocking(store).await {
            saved = stored;
            failure.send_replace(saved.failure());
        }
        kept.send_replace(Some(answer));
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
    async fn who_waits_for_it_finds_it_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let mut saved = Saved::at(Some(folder.path().join("answer.json")));
        let (mut keeper, latest) = Keeper::after(None);
        keeper.kept().await;
        let running = tokio::spawn(run(saved.clone(), latest));
        for at in ["life.7", "life.8"] {
            keeper.keep(answer(at));
            keeper.kept().await;
            assert_eq!(saved.load(), Some(answer(at)));
        }
        running.abort();
        let _ = running.await;
        keeper.keep(answer("life.9"));
        keeper.kept().await;
    }

    #[tokio::test]
    async fn what_is_on_disk_is_not_written_again() {
        let (keeper, latest) = Keeper::after(Some(answer("life.7")));
        keeper.keep(answer("life.7"));
        assert!(!latest.left.has_changed().unwrap());
        keeper.keep(answer("life.8"));
        assert!(latest.left.has_changed().unwrap());
    }
}
