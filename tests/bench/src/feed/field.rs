//! Agents, where they are, and what is known of them.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use policy_client::internal::{Answer, Client, Question};
use tokio::time::{sleep, timeout, timeout_at};

use super::{
    agent::{self, settings},
    baseline::{self, Questions},
    ledger::{Delays, Ledger, Written},
    places::{Change, Places},
    swarm::{Reporter, Swarm},
    writer::Writer,
};
use crate::{client::Door, fleet, subject::Subject};

/// Every agent must have its first answer within this.
const GATHERING: Duration = Duration::from_secs(300);

/// A change that is not held by then is lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// What comes after the last change by mistake comes within this.
const AFTERMATH: Duration = Duration::from_millis(500);

/// A swarm at work.
pub(super) struct Field {
    pub places: Arc<Places>,
    pub ledger: Ledger,
    swarm: Swarm,
}

impl Field {
    /// Agents that follow `servers` by polls that are held.
    pub(super) async fn held(places: &Arc<Places>, servers: &[&Subject]) -> Result<Self> {
        let first = servers.first().context("there is a server to follow")?;
        let pki = first.pki();
        let urls: Vec<_> = servers.iter().map(|server| server.internal_url()).collect();
        let here = places.clone();
        let live = move |cell, reporter: Reporter| {
            // Making a client takes a moment, and is the agent's own affair.
            let follower = agent::follower(cell, &settings(cell, &urls, &pki));
            let apps = here.apps(cell);
            async move {
                // Those that cannot begin are missed when all should be there.
                if let Ok(follower) = follower {
                    agent::follow(follower, apps, reporter).await;
                }
            }
        };
        Self::gathered(places, Swarm::start(places.cells, live)?).await
    }

    /// Agents that ask `server` every now and then.
    pub(super) async fn polled(places: &Arc<Places>, server: &Subject) -> Result<Self> {
        let (here, door): (_, Door) = (places.clone(), server.internal.clone());
        let live = move |cell, reporter: Reporter| {
            let ids: Vec<_> = here.apps(cell).iter().map(ToString::to_string).collect();
            let questions = Questions::about(door.clone(), &ids.join(","));
            async move {
                if let Ok(questions) = questions {
                    baseline::poll(questions, reporter).await;
                }
            }
        };
        Self::gathered(places, Swarm::start(places.cells, live)?).await
    }

    async fn gathered(places: &Arc<Places>, swarm: Swarm) -> Result<Self> {
        let mut field = Self { places: places.clone(), ledger: Ledger::new(places.cells), swarm };
        let deadline = Instant::now() + GATHERING;
        while !field.ledger.is_everybody_there() {
            let event = timeout_at(deadline.into(), field.swarm.events.recv()).await;
            let event = event.context("not every agent got its policies")?;
            field.ledger.note(event.context("the agents are gone")?);
        }
        Ok(field)
    }

    /// Makes `count` changes and takes them back, one after the other, each once the one before is
    /// known to all it concerns, and after a `pause`.
    pub(super) async fn changes(
        &mut self,
        server: &Subject,
        changes: impl Iterator<Item = Change>,
        pause: Duration,
    ) -> Result<Delays> {
        self.hear();
        self.ledger.begin();
        let mut writer = Writer::new(vec![server.external.clone()]);
        for Change { policy, concerned } in changes {
            for exists in [true, false] {
                sleep(pause).await;
                let written = writer.write(&policy, exists).await?;
                self.ledger.expect(&written, &concerned);
                self.settle().await;
            }
        }
        sleep(AFTERMATH).await;
        self.hear();
        Ok(self.ledger.delays())
    }

    /// Takes note of a change that agents are still to be told of.
    pub(super) fn expect(&mut self, written: &Written, change: &Change) {
        self.hear();
        self.ledger.expect(written, &change.concerned);
    }

    /// Waits until every agent holds what it should, or will not any more.
    pub(super) async fn settle(&mut self) {
        let settled = async {
            while !self.ledger.is_settled() {
                let Some(event) = self.swarm.events.recv().await else { break };
                self.ledger.note(event);
            }
        };
        let _ = timeout(PATIENCE, settled).await;
        self.ledger.give_up();
    }

    /// How many agents hold other policies than any of `servers` does.
    pub(super) async fn differing(&mut self, servers: &[&Subject]) -> Result<usize> {
        self.hear();
        let mut most = 0;
        for server in servers {
            let all = everything(&self.places, &server.internal_url(), &server.pki()).await?;
            most = most.max(self.ledger.differing(&all, |cell| self.places.apps(cell)));
        }
        Ok(most)
    }

    fn hear(&mut self) {
        while let Ok(event) = self.swarm.events.try_recv() {
            self.ledger.note(event);
        }
    }
}

/// Every policy of the server at `url`, asked for as by a cell that has all apps.
async fn everything(places: &Places, url: &str, pki: &Path) -> Result<Vec<policy::TaggedPolicy>> {
    let apps = (0..=places.apps).map(|number| fleet::guid(number).parse());
    let apps = apps.collect::<Result<_, _>>()?;
    let client = Client::new(&settings(places.cells, &[url.to_owned()], pki))?;
    match client.policies(&Question { apps, ..Question::default() }).await? {
        Answer::Policies { policies, .. } => Ok(policies),
        Answer::NotModified(_) | Answer::Changes { .. } => bail!("nothing is known yet"),
    }
}
