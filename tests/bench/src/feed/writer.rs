//! The caller of the external API who makes the changes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use policy::{Policy, Version, wire::v1::PolicyList};
use tokio::time::sleep;

use super::ledger::Written;
use crate::client::{Connection, Door};

const POLICIES: &str = "/networking/v1/external/policies";
const DELETE: &str = "/networking/v1/external/policies/delete";

/// A change must be accepted within this, whichever server is away.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// Somebody with a connection to one of the servers, who goes to another when that fails.
pub(super) struct Writer {
    doors: Vec<Door>,
    at: usize,
    connection: Option<Connection>,
    /// Attempts that failed.
    pub failures: u64,
}

impl Writer {
    pub(super) fn new(doors: Vec<Door>) -> Self {
        Self { doors, at: 0, connection: None, failures: 0 }
    }

    /// Creates or deletes `policy`, asking again until it is answered: both may be asked twice.
    pub(super) async fn write(&mut self, policy: &Policy, exists: bool) -> Result<Written> {
        let asked = Instant::now();
        loop {
            match self.attempt(policy, exists).await {
                Ok(version) => {
                    let (policy, answered) = (policy.clone(), Instant::now());
                    return Ok(Written { policy, exists, version, asked, answered });
                }
                Err(error) if asked.elapsed() > PATIENCE => {
                    return Err(error.context("no server took a change"));
                }
                Err(_) => {
                    self.failures += 1;
                    self.connection = None;
                    self.at = (self.at + 1) % self.doors.len();
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Deletes all of `policies`, which may be many.
    pub(super) async fn delete(&mut self, policies: &[Policy]) -> Result<()> {
        for some in policies.chunks(100) {
            self.post(DELETE, some).await?;
        }
        Ok(())
    }

    async fn attempt(&mut self, policy: &Policy, exists: bool) -> Result<Version> {
        let path = if exists { POLICIES } else { DELETE };
        self.post(path, std::slice::from_ref(policy)).await
    }

    async fn post(&mut self, path: &str, policies: &[Policy]) -> Result<Version> {
        let door = &self.doors[self.at];
        let body = serde_json::to_vec(&PolicyList::of(policies))?;
        let call = door.post(path, body.into())?;
        if self.connection.is_none() {
            self.connection = Some(door.connect().await?);
        }
        let connection = self.connection.as_mut().context("it was made")?;
        let answer = connection.whole(call).await?;
        let Some(version) = answer.headers().get("netman-revision") else {
            bail!("the server does not say at which revision it made a change");
        };
        Ok(version.to_str()?.parse()?)
    }
}
