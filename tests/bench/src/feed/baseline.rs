//! An agent as of old: every five seconds it asks when policies changed last, and when that is another
//! time than before, for all policies of its apps (spec/policy-server.md §5.2).

use std::time::Duration;

use anyhow::{Context, Result};
use hyper::{body::Bytes, header::ETAG};
use policy::{Version, wire::v1::PolicyList};
use policy_client::internal::follow::Counts;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::swarm::{News, Reporter};
use crate::client::{Call, Connection, Door};

/// The usual interval.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);

/// Where it is asked when policies changed last.
const PROBE: &str = "/networking/v1/internal/policies_last_updated";

/// What an agent asks, made before the clock runs.
pub(super) struct Questions {
    door: Door,
    probe: Call,
    list: Call,
}

impl Questions {
    /// About the apps with these guids, separated by commas.
    pub(super) fn about(door: Door, ids: &str) -> Result<Self> {
        let probe = door.get(PROBE)?;
        let list = door.get(&format!("/networking/v1/internal/policies?id={ids}"))?;
        Ok(Self { door, probe, list })
    }
}

/// Asks for ever.
pub(super) async fn poll(questions: Questions, reporter: Reporter) {
    // Cells were not switched on in the same instant.
    sleep(INTERVAL.mul_f64(fastrand::f64())).await;
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut agent = Agent { questions, connection: None, last_updated: Bytes::new() };
    let mut counts = Counts::default();
    loop {
        ticks.tick().await;
        match agent.ask(&mut counts).await {
            Ok(Some(news)) => reporter.holds(news, counts),
            Ok(None) => {}
            Err(_) => {
                agent.connection = None;
                counts.failures += 1;
                reporter.failed(counts);
            }
        }
    }
}

struct Agent {
    questions: Questions,
    connection: Option<Connection>,
    last_updated: Bytes,
}

impl Agent {
    async fn ask(&mut self, counts: &mut Counts) -> Result<Option<News>> {
        if self.connection.is_none() {
            self.connection = Some(self.questions.door.connect().await?);
        }
        let connection = self.connection.as_mut().context("it was made")?;
        let last_updated = connection.read(self.questions.probe.clone()).await?;
        if last_updated == self.last_updated {
            return Ok(None);
        }
        let answer = connection.whole(self.questions.list.clone()).await?;
        self.last_updated = last_updated;
        counts.wholes += 1;
        counts.whole_bytes += answer.body().len() as u64;
        let version = answer.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
        let version = version.map(Version::from_etag).transpose()?;
        let list: PolicyList = serde_json::from_slice(answer.body())?;
        let policies = list.into_tagged()?.into_iter().collect();
        Ok(Some(News { policies, version, was_woken: true }))
    }
}
