//! Whose apps callers may touch who are no administrators: those in spaces they develop in
//! (spec/policy-server.md §3.4–§3.6). Cloud Controller knows; what follows from its answers is
//! decided without it in `filter` and `quota`.

mod filter;
pub(crate) mod lookup;
mod quota;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, num::NonZeroUsize, sync::Arc};

use futures::{StreamExt, TryStreamExt, stream};
use policy::{AppGuid, Policy};
use policy_store::Filter;
use thiserror::Error;

use crate::{
    auth::UserGuid,
    cloud_controller::{App, AppDirectory, CloudControllerError, SpaceGuid},
    snapshot::{Entry, Snapshot},
};

/// How many spaces are asked about at the same time for one caller.
const AT_ONCE: usize = 4;

/// The most apps one question is about when it is not to be divided. The address would get too long.
const UNDIVIDED: NonZeroUsize = NonZeroUsize::new(500).expect("it is not zero");

/// What callers who are no administrators are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How many policies may have the same app as their source (`max_policies`).
    pub max_policies: usize,
    /// How many apps one question to Cloud Controller is about, when policies are listed
    /// (`cc_app_request_chunk_size`).
    pub chunk_size: NonZeroUsize,
    /// Whether policies may name apps that Cloud Controller does not know.
    pub unknown_apps: UnknownApps,
}

impl Settings {
    /// The policies an app may be the source of unless told otherwise.
    pub const MAX_POLICIES: usize = 150;
    /// The apps a question is about unless told otherwise.
    pub const CHUNK_SIZE: NonZeroUsize = NonZeroUsize::new(100).expect("it is not zero");
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_policies: Self::MAX_POLICIES,
            chunk_size: Self::CHUNK_SIZE,
            unknown_apps: UnknownApps::default(),
        }
    }
}

/// What becomes of a policy that names an app which Cloud Controller does not know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnknownApps {
    /// It may be created, as in the existing system, whatever its error text says
    /// (spec/policy-server.md §17).
    #[default]
    Pass,
    /// It may not.
    Refuse,
}

/// Decides what callers may touch.
pub(crate) struct Apps {
    directory: Arc<dyn AppDirectory>,
    settings: Settings,
}

/// An answer from which nothing can be decided.
#[derive(Debug, Error)]
pub(crate) enum AppsError {
    #[error(transparent)]
    CloudController(#[from] CloudControllerError),
    #[error("Cloud Controller does not tell which space app {0} is in")]
    NoSpace(AppGuid),
}

impl Apps {
    pub(crate) fn new(directory: Arc<dyn AppDirectory>, settings: Settings) -> Self {
        Self { directory, settings }
    }

    /// Whether `user` may create or delete `policies`: they develop in the space of every app these
    /// name. Whoever Cloud Controller cannot know may nothing.
    pub(crate) async fn may_change(
        &self,
        user: Option<&UserGuid>,
        policies: &[Policy],
    ) -> Result<bool, AppsError> {
        let Some(user) = user else { return Ok(false) };
        let named = named(policies);
        let found = lookup::existing(&*self.directory, &named, UNDIVIDED).await?;
        if self.settings.unknown_apps == UnknownApps::Refuse && !are_all_among(&named, &found) {
            return Ok(false);
        }
        self.develops_in_all(user, spaces(found)?).await
    }

    async fn develops_in_all(
        &self,
        user: &UserGuid,
        spaces: BTreeSet<SpaceGuid>,
    ) -> Result<bool, AppsError> {
        let mut answers = stream::iter(spaces)
            .map(|space| async move { self.directory.is_developer(user, &space).await })
            .buffered(AT_ONCE);
        while let Some(develops) = answers.try_next().await? {
            if !develops {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Those of `entries` that `user` may see: both ends are in spaces they develop in.
    pub(crate) async fn visible(
        &self,
        user: Option<&UserGuid>,
        entries: Vec<Arc<Entry>>,
    ) -> Result<Vec<Arc<Entry>>, AppsError> {
        let Some(user) = user else { return Ok(Vec::new()) };
        let named: BTreeSet<_> =
            entries.iter().flat_map(|entry| ends(&entry.tagged.policy)).collect();
        let named: Vec<_> = named.into_iter().cloned().collect();
        let (apps, spaces) = tokio::try_join!(
            lookup::existing(&*self.directory, &named, self.settings.chunk_size),
            self.directory.spaces_of(user),
        )?;
        Ok(filter::visible(entries, apps, &spaces))
    }

    /// Whether creating `policies` would give an app more policies than it may have. Another request
    /// may come in between, as in the existing system.
    pub(crate) fn exceeds_quota(&self, policies: &[Policy], snapshot: &Snapshot) -> bool {
        let sources = Some(named(policies).into_iter().collect());
        let existing = snapshot.select(&Filter::Between { sources, destinations: None });
        let existing = existing.iter().map(|entry| &entry.tagged.policy);
        quota::exceeds(policies, existing, self.settings.max_policies)
    }
}

fn ends(policy: &Policy) -> [&AppGuid; 2] {
    [&policy.source, &policy.destination]
}

/// The apps `policies` name, each once.
fn named(policies: &[Policy]) -> Vec<AppGuid> {
    let named: BTreeSet<_> = policies.iter().flat_map(ends).collect();
    named.into_iter().cloned().collect()
}

fn are_all_among(named: &[AppGuid], found: &[App]) -> bool {
    let found: BTreeSet<_> = found.iter().map(|app| &app.guid).collect();
    named.iter().all(|app| found.contains(app))
}

/// The spaces of all apps that were found, also of those nobody asked for, as in the existing system.
fn spaces(found: Vec<App>) -> Result<BTreeSet<SpaceGuid>, AppsError> {
    found.into_iter().map(|app| app.space.ok_or(AppsError::NoSpace(app.guid))).collect()
}
