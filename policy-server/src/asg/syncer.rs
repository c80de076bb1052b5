//! The loop: become the leader, stay it, and look at Cloud Controller every so often.

use std::{sync::Arc, time::Duration};

use policy_store::{PolicyStore, StoreError};
use thiserror::Error;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    leader::{LeadError, Leadership},
    list::{Look, SecurityGroupSource, SourceError, look},
};

/// The lead is renewed this many times within its lifetime.
const RENEWALS: u32 = 3;

/// How long giving the lead back may take at the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// When to look, and how long to be patient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncerSettings {
    /// The time before the first look, and between any two.
    pub interval: Duration,
    /// How long the list may be too restless to be read.
    pub unstable_for: Duration,
    /// What a look that fails does.
    pub on_failure: OnFailure,
}

/// What becomes of a syncer whose look fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// It ends, as the existing one does, and is started again by whoever watches it.
    End,
    /// It says so and goes on, since other things live in the same process.
    GoOn,
}

/// Who is told how long things take (spec/policy-server.md §11).
pub trait SyncMetrics: Send + Sync {
    /// `SecurityGroupsRetrievalFromCCTime`: the list was read.
    fn retrieved(&self, took: Duration);
    /// `SecurityGroupsTotalSyncTime`: it was read and stored.
    fn synced(&self, took: Duration);
}

/// Why a syncer ends before it is told to.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each text says what the variant means")]
pub enum SyncerError {
    #[error("reading security groups from Cloud Controller")]
    Source(#[from] SourceError),
    #[error("the list of security groups has been changing for {} s whenever it was read", .0.as_secs())]
    Unstable(Duration),
    #[error("storing security groups")]
    Store(#[from] StoreError),
    #[error("the lead went to another syncer")]
    LeadLost,
    #[error("the lead could not be renewed in time")]
    LeadLapsed(#[source] LeadError),
}

/// Copies security groups from Cloud Controller into the database.
pub struct Syncer {
    source: Arc<dyn SecurityGroupSource>,
    store: Arc<dyn PolicyStore>,
    metrics: Arc<dyn SyncMetrics>,
    settings: SyncerSettings,
    /// The last update that was stored.
    seen: Option<OffsetDateTime>,
    /// When the list was last read, or known to be unchanged.
    succeeded: Instant,
}

impl Syncer {
    /// A syncer that has not looked yet.
    pub fn new(
        source: Arc<dyn SecurityGroupSource>,
        store: Arc<dyn PolicyStore>,
        metrics: Arc<dyn SyncMetrics>,
        settings: SyncerSettings,
    ) -> Self {
        Self { source, store, metrics, settings, seen: None, succeeded: Instant::now() }
    }

    /// Looks at every interval, for ever or until a look fails.
    async fn follow(mut self) -> SyncerError {
        self.succeeded = Instant::now();
        loop {
            sleep(self.settings.interval).await;
            match (self.sync().await, self.settings.on_failure) {
                (Ok(()), _) => {}
                (Err(error), OnFailure::End) => return error,
                (Err(error), OnFailure::GoOn) => {
                    let error = service::log::chain(&error);
                    tracing::error!(error, "Could not sync security groups; those known stay.");
                }
            }
        }
    }

    /// One look, and what follows from it.
    pub async fn sync(&mut self) -> Result<(), SyncerError> {
        let started = Instant::now();
        let found = match look(&*self.source, self.seen).await? {
            // A database that has been made anew since does not have what was seen.
            Look::Unchanged if self.store.security_groups().await?.is_none() => {
                look(&*self.source, None).await?
            }
            found => found,
        };
        let (groups, updated) = match found {
            Look::Fresh { groups, updated } => (groups, updated),
            Look::Unchanged => {
                self.succeeded = Instant::now();
                return Ok(());
            }
            Look::Unstable => return self.tolerate(),
        };
        self.metrics.retrieved(started.elapsed());
        self.store.replace_security_groups(&groups).await?;
        self.metrics.synced(started.elapsed());
        self.seen = updated;
        self.succeeded = Instant::now();
        Ok(())
    }

    /// A list that will not hold still is no failure until it has been so for long.
    fn tolerate(&self) -> Result<(), SyncerError> {
        let unread = self.succeeded.elapsed();
        if unread >= self.settings.unstable_for {
            return Err(SyncerError::Unstable(unread));
        }
        tracing::warn!("The list of security groups changed whenever it was read; trying later.");
        Ok(())
    }
}

/// Becomes the leader, then syncs until `shutdown`; gives the lead back at the end.
pub async fn run(
    syncer: Syncer,
    lead: &dyn Leadership,
    shutdown: CancellationToken,
) -> Result<(), SyncerError> {
    let work = async {
        let taken = take(lead).await;
        tracing::info!("Leading the syncers of security groups.");
        tokio::select! {
            error = keep(lead, taken) => error,
            error = syncer.follow() => error,
        }
    };
    let ended = tokio::select! {
        error = work => Err(error),
        () = shutdown.cancelled() => Ok(()),
    };
    if let Ok(Err(error)) = timeout(FAREWELL, lead.release()).await {
        tracing::warn!(error = service::log::chain(&error), "Could not give the lead back.");
    }
    ended
}

/// Waits for the lead; returns when it was asked for.
async fn take(lead: &dyn Leadership) -> Instant {
    let mut failing = false;
    loop {
        let asked = Instant::now();
        match lead.hold().await {
            Ok(true) => return asked,
            Ok(false) => failing = false,
            Err(error) if !failing => {
                failing = true;
                let error = service::log::chain(&error);
                tracing::error!(error, "Cannot become the leader; trying again.");
            }
            Err(_) => {}
        }
        sleep(lead.lifetime() / RENEWALS).await;
    }
}

/// Renews the lead that was `taken`, until that fails for as long as it lasts.
async fn keep(lead: &dyn Leadership, mut taken: Instant) -> SyncerError {
    loop {
        sleep(lead.lifetime() / RENEWALS).await;
        let asked = Instant::now();
        let left = lead.lifetime().saturating_sub(taken.elapsed());
        match timeout(left, lead.hold()).await {
            Ok(Ok(true)) => taken = asked,
            Ok(Ok(false)) => return SyncerError::LeadLost,
            Ok(Err(error)) if taken.elapsed() >= lead.lifetime() => {
                return SyncerError::LeadLapsed(error);
            }
            Ok(Err(error)) => {
                let error = service::log::chain(&error);
                tracing::warn!(error, "Could not renew the lead; trying again.");
            }
            Err(_) => return SyncerError::LeadLost,
        }
    }
}

#[cfg(test)]
mod tests;
