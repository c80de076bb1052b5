//! Many agents on one thread of their own, so that what they do delays nobody who takes the time of a
//! change; they do delay each other, as they share a processor that real cells would not.

use std::{
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use policy::Version;
use policy_client::internal::follow::{Counts, Policies};
use tokio::{
    runtime,
    sync::{mpsc, oneshot},
    time::sleep,
};

/// Agents begin one after the other: what is measured is not how a thousand cells are switched on.
const BETWEEN_STARTS: Duration = Duration::from_millis(2);

/// The swarm; agents hang up when it is dropped.
pub(super) struct Swarm {
    pub events: mpsc::UnboundedReceiver<Event>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Something happened to an agent.
pub(super) struct Event {
    pub cell: usize,
    pub at: Instant,
    /// What it holds now, if that is new.
    pub news: Option<News>,
    /// What it met so far.
    pub counts: Counts,
}

/// What an agent holds.
#[derive(Clone)]
pub(super) struct News {
    pub policies: Policies,
    pub version: Option<Version>,
    /// Whether it was told before it had waited as long as it would.
    pub was_woken: bool,
}

/// Where an agent tells of itself.
#[derive(Clone)]
pub(super) struct Reporter {
    cell: usize,
    events: mpsc::UnboundedSender<Event>,
}

impl Swarm {
    /// Lets `agent` live for each of `cells`.
    pub(super) fn start<Agent>(
        cells: usize,
        agent: impl Fn(usize, Reporter) -> Agent + Send + 'static,
    ) -> Result<Self>
    where
        Agent: Future<Output = ()> + Send + 'static,
    {
        let (sender, events) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("preparing a thread for agents")?;
        let live = move || {
            runtime.block_on(async {
                tokio::spawn(async move {
                    for cell in 0..cells {
                        tokio::spawn(agent(cell, Reporter { cell, events: sender.clone() }));
                        sleep(BETWEEN_STARTS).await;
                    }
                });
                // Its sender is dropped at the latest when the swarm is.
                let _ = stopped.await;
            });
        };
        let thread = thread::Builder::new().name("agents".to_owned()).spawn(live)?;
        Ok(Self { events, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Whatever it panicked of has been printed, and what it did not do is missed.
            let _ = thread.join();
        }
    }
}

impl Reporter {
    /// The agent holds other policies than before.
    pub(super) fn holds(&self, news: News, counts: Counts) {
        self.tell(Some(news), counts);
    }

    /// The agent was refused, or found nobody.
    pub(super) fn failed(&self, counts: Counts) {
        self.tell(None, counts);
    }

    fn tell(&self, news: Option<News>, counts: Counts) {
        // Nobody listens at the end only.
        let _ = self.events.send(Event { cell: self.cell, at: Instant::now(), news, counts });
    }
}
