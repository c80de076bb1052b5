//! Removes policies whose apps are gone, since nobody else will (spec/policy-server.md §8).
//!
//! What is deleted here is deleted on Cloud Controller's word, so the word must be clear: an answer
//! without a list of apps deletes nothing, nor does one that knows not a single app.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashSet},
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use policy::{AppGuid, Policy, Version};
use policy_store::{Actor, Filter, StoreError};
use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval_at};

use crate::{
    api::error::ApiError,
    apps::lookup::{self, Chunk},
    cloud_controller::{AppDirectory, CloudControllerError},
    server::Server,
    snapshot::Entry,
};

/// So few apps may all have gone at once.
const HANDFUL: usize = 10;

/// When and how policies are cleaned up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The time before the first cleanup, and between any two (`cleanup_interval`).
    pub interval: Duration,
    /// How many apps one question to Cloud Controller is about (`cc_app_request_chunk_size`).
    pub chunk_size: NonZeroUsize,
    /// What to do when Cloud Controller knows none of many apps.
    pub all_gone: AllGone,
}

impl Settings {
    /// The usual time between two cleanups.
    pub const INTERVAL: Duration = Duration::from_secs(3600);
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interval: Self::INTERVAL,
            chunk_size: crate::apps::Settings::CHUNK_SIZE,
            all_gone: AllGone::default(),
        }
    }
}

/// What to think of a Cloud Controller that knows none of the apps that policies name, and they are
/// more than ten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AllGone {
    /// That its database is empty, or not the one these policies are about: nothing is deleted.
    #[default]
    Doubted,
    /// That they are all gone: every policy is deleted, as the existing system would.
    Believed,
}

/// Finds policies whose apps are gone.
pub(crate) struct Cleaner {
    directory: Arc<dyn AppDirectory>,
    settings: Settings,
}

/// Policies that were deleted.
#[derive(Debug)]
pub(crate) struct Cleaned {
    /// Each one, twice if its ends were found to be gone by two questions.
    pub entries: Vec<Arc<Entry>>,
    /// What holds the change; `None` if there was nothing to delete.
    pub version: Option<Version>,
}

/// Why nothing was deleted.
#[derive(Debug, Error)]
pub(crate) enum CleanupError {
    #[error("there is no Cloud Controller to tell which apps are gone")]
    Nobody,
    #[error("reading policies")]
    Read(#[source] Box<ApiError>),
    #[error("asking which apps are gone")]
    CloudController(#[source] CloudControllerError),
    #[error(
        "Cloud Controller knows none of the {0} apps that policies name, which is hardly the truth; \
         if it is, the configuration must allow to delete all policies"
    )]
    AllGone(usize),
    #[error("deleting policies of apps that are gone")]
    Delete(#[source] StoreError),
}

impl Cleaner {
    pub(crate) fn new(directory: Arc<dyn AppDirectory>, settings: Settings) -> Self {
        Self { directory, settings }
    }

    /// Those of `entries` with an end that is gone.
    async fn stale(&self, entries: &[Arc<Entry>]) -> Result<Vec<Arc<Entry>>, CleanupError> {
        let apps: BTreeSet<_> = entries.iter().flat_map(|entry| ends(entry)).collect();
        let apps: Vec<_> = apps.into_iter().cloned().collect();
        let chunks = lookup::chunks(&*self.directory, &apps, self.settings.chunk_size)
            .await
            .map_err(CleanupError::CloudController)?;
        let gone: Vec<_> = chunks.iter().map(Chunk::gone).collect();
        if self.settings.all_gone == AllGone::Doubted && are_suspiciously_many(&gone, apps.len()) {
            return Err(CleanupError::AllGone(apps.len()));
        }
        Ok(touched(entries, &gone))
    }
}

/// Deletes policies whose apps are gone, in the name of `actor`.
pub(crate) async fn clean(server: &Server, actor: &Actor) -> Result<Cleaned, CleanupError> {
    let cleaner = server.cleaner.as_ref().ok_or(CleanupError::Nobody)?;
    let snapshot = server.current().await.map_err(|error| CleanupError::Read(Box::new(error)))?;
    let entries = cleaner.stale(&snapshot.select(&Filter::All)).await?;
    if entries.is_empty() {
        return Ok(Cleaned { entries, version: None });
    }
    let once: BTreeSet<_> = entries.iter().map(|entry| &entry.tagged.policy).collect();
    let policies: Vec<Policy> = once.into_iter().cloned().collect();
    let version = server.store.delete(&policies, actor).await.map_err(CleanupError::Delete)?;
    tracing::info!(
        policies.count = policies.len(),
        user.name = actor.subject,
        http.id = actor.request,
        %version,
        "Deleted policies of apps that are gone."
    );
    Ok(Cleaned { entries, version: Some(version) })
}

/// Cleans up at every interval, as long as it is polled. What fails is tried again the next time.
pub(crate) async fn run(server: Arc<Server>) {
    let Some(cleaner) = &server.cleaner else { return };
    let every = cleaner.settings.interval;
    // Not at the start: whoever asks for a cleanup then wants to be told what it deletes.
    let mut tick = interval_at(tokio::time::Instant::now() + every, every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Err(error) = clean(&server, &Actor::system("policy-cleaner")).await {
            let error = service::log::chain(&error);
            tracing::error!(name: "poll-cycle", { error }, "Could not clean up policies.");
        }
    }
}

fn ends(entry: &Entry) -> [&AppGuid; 2] {
    let policy = &entry.tagged.policy;
    [&policy.source, &policy.destination]
}

impl Chunk<'_> {
    /// The apps in question that were not found.
    fn gone(&self) -> HashSet<&AppGuid> {
        let found: HashSet<_> = self.found.iter().map(|app| &app.guid).collect();
        self.apps.iter().filter(|app| !found.contains(app)).collect()
    }
}

fn are_suspiciously_many(gone: &[HashSet<&AppGuid>], apps: usize) -> bool {
    apps > HANDFUL && gone.iter().map(HashSet::len).sum::<usize>() == apps
}

/// For each set of apps that are gone, the policies with an end among them.
fn touched(entries: &[Arc<Entry>], gone: &[HashSet<&AppGuid>]) -> Vec<Arc<Entry>> {
    let of = |gone: &HashSet<&AppGuid>| {
        let touched =
            entries.iter().filter(|entry| ends(entry).iter().any(|app| gone.contains(app)));
        touched.cloned().collect::<Vec<_>>()
    };
    gone.iter().filter(|gone| !gone.is_empty()).flat_map(of).collect()
}
