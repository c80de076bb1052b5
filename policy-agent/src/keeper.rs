//! Keeps what the server said last on disk, beside the way to the kernel: a slow disk delays no rule.
//!
//! An agent killed between the two enforces, at its next start, what it had kept before, until the
//! server has answered; with the server at hand that is the blink of an eye.

use policy_client::internal::follow::Given;
use tokio::{sync::watch, task::spawn_blocking};

use crate::answer::Saved;

/// Where to leave what is to be kept. When it is dropped, [`run`] ends, the last having been kept.
pub(crate) struct Keeper(watch::Sender<Option<Given>>);

impl Keeper {
    /// Keeps what comes after `kept`, which is on disk.
    pub fn after(kept: Option<Given>) -> (Self, watch::Receiver<Option<Given>>) {
        let (tell, latest) = watch::channel(kept);
        (Self(tell), latest)
    }

    /// Has `given` kept, soon, unless it is already; whatever was left before and not kept yet need
    /// not be any more.
    pub fn keep(&self, given: Given) {
        self.0.send_if_modified(|latest| {
            let new = latest.as_ref() != Some(&given);
            *latest = Some(given);
            new
        });
    }
}

/// Keeps one after the other.
pub(crate) async fn run(saved: Saved, mut latest: watch::Receiver<Option<Given>>) {
    while latest.changed().await.is_ok() {
        let Some(given) = latest.borrow_and_update().clone() else { continue };
        let saved = saved.clone();
        // A panic has been printed already, and the next answer has another try.
        let _ = spawn_blocking(move || saved.store(&given)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(at: &str) -> Given {
        let policies = std::sync::Arc::default();
        Given { apps: ["web".parse().unwrap()].into(), policies, version: at.parse().ok() }
    }

    #[tokio::test]
    async fn the_last_answer_is_on_disk_when_the_agent_has_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let saved = Saved::at(Some(folder.path().join("answer.json")));
        let (keeper, latest) = Keeper::after(None);
        let running = tokio::spawn(run(saved.clone(), latest));
        for at in ["life.7", "life.8", "life.9"] {
            keeper.keep(given(at));
        }
        drop(keeper);
        running.await.unwrap();
        assert_eq!(saved.load().unwrap().0, given("life.9"));
    }

    #[tokio::test]
    async fn what_is_on_disk_is_not_written_again() {
        let (keeper, latest) = Keeper::after(Some(given("life.7")));
        keeper.keep(given("life.7"));
        assert!(!latest.has_changed().unwrap());
        keeper.keep(given("life.8"));
        assert!(latest.has_changed().unwrap());
    }
}
