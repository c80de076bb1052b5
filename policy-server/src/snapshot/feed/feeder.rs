//! The task that keeps the snapshot current.

use std::{sync::Arc, time::Duration};

use policy::{Revision, TagLength};
use policy_store::{Change, Changes, PolicyStore, State, StoreError};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::Source;
use crate::snapshot::{Snapshot, Touched};

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Hints may come in any number; between two looks there is always this.
const LOOKS_APART: Duration = Duration::from_millis(2);

/// How often security groups are compared with the database's. A syncer of the existing system, which may
/// run beside ours while they are being exchanged, changes them and leaves no trace but that.
const COMPARE_EVERY: Duration = Duration::from_secs(10);

/// How long an older server may keep everything from being read. Cells are told what was known last.
const PATIENCE: Duration = Duration::from_secs(5);

/// Before everything is read once more; the next pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

pub(crate) struct Feeder {
    store: Arc<dyn PolicyStore>,
    tag_length: TagLength,
    source: Source,
    failing: bool,
}

/// Why a snapshot was not made of the one before and the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// The log does not fit the snapshot.
    Inconsistent,
    /// The log does not reach back, mostly since somebody changed policies who writes no log.
    Forgotten,
    /// The log holds what only a newer server can read.
    Unreadable,
    /// The security groups became others again while they were read.
    Overtaken,
}

impl Feeder {
    pub(super) fn new(store: Arc<dyn PolicyStore>, tag_length: TagLength, source: Source) -> Self {
        Self { store, tag_length, source, failing: false }
    }

    /// Runs until dropped.
    pub(crate) async fn run(self) {
        let waiting = self.source.waiting.clone();
        tokio::join!(waiting.spread(), self.keep_looking());
    }

    async fn keep_looking(mut self) {
        let mut tick = interval(LOOK_EVERY);
        let mut compare = interval(COMPARE_EVERY);
        for timer in [&mut tick, &mut compare] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut last = Instant::now();
        loop {
            let comparing = tokio::select! {
                () = self.source.nudged() => false,
                () = self.hinted(last + LOOKS_APART) => false,
                _ = tick.tick() => false,
                _ = compare.tick() => true,
            };
            last = Instant::now();
            let looked = self.look(comparing).await;
            if looked.is_ok() {
                self.source.looked(last);
            }
            self.tell(looked);
        }
    }

    /// Returns when the database hints at a change, not before `earliest`.
    async fn hinted(&self, earliest: Instant) {
        self.store.hint().await;
        sleep_until(earliest).await;
        self.source.metrics.hinted();
    }

    /// Logs when looking begins to fail, and when it ends.
    fn tell(&mut self, looked: Result<(), StoreError>) {
        match looked {
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!("The database answers again.");
            }
            Err(error) if !self.failing => {
                self.failing = true;
                let error = service::log::chain(&error);
                tracing::error!(
                    error,
                    "The database is in trouble; cells are told what is known of it."
                );
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// What cells claim to know is looked into first; a database that cannot be written to may be read.
    pub(super) async fn look(&mut self, comparing: bool) -> Result<(), StoreError> {
        let examined = self.examine_claims().await;
        self.read(comparing).await?;
        examined
    }

    async fn examine_claims(&mut self) -> Result<(), StoreError> {
        let Some(claimed) = self.source.claims.latest() else { return Ok(()) };
        let version = self.store.begin_another_life(Some(&claimed)).await?;
        let renewed = version.life != claimed.life;
        self.source.claims.close(renewed);
        if renewed {
            tracing::warn!(%version, was = %claimed, "Cells know later revisions; another life begins.");
        }
        Ok(())
    }

    async fn read(&mut self, comparing: bool) -> Result<(), StoreError> {
        let current = self.source.current();
        if comparing && self.store.security_groups().await?.as_deref() != current.security_groups()
        {
            self.store.announce_security_groups(current.version()).await?;
        }
        let (next, touched) = match self.store.changes_since(current.version()).await {
            Ok(Changes::Log(log)) if log.is_empty() => return Ok(()),
            Ok(Changes::Log(log)) => self.follow(&current, log).await?,
            Ok(Changes::Forgotten) => self.rebuild(&current, Reason::Forgotten).await?,
            // A newer server on the same database may log kinds of change that this one cannot know.
            Err(error @ StoreError::Unreadable { .. }) => {
                let next = self.rebuild(&current, Reason::Unreadable).await?;
                tracing::warn!(error = service::log::chain(&error), "Passed over the log.");
                next
            }
            Err(error) => return Err(error),
        };
        self.source.publish(next.forgetting(), &touched);
        Ok(())
    }

    /// The snapshot after what the log says.
    async fn follow(
        &self,
        current: &Snapshot,
        log: Vec<(Revision, Change)>,
    ) -> Result<(Snapshot, Touched), StoreError> {
        let mut touched = Touched::by(&log);
        let groups_replaced = replaces_groups(&log);
        let next = match current.after(log) {
            Ok(next) => next,
            Err(error) => {
                tracing::error!(%error, "The log of changes does not fit the snapshot.");
                return self.rebuild(current, Reason::Inconsistent).await;
            }
        };
        if !groups_replaced {
            return Ok((next, touched));
        }
        let groups = self.store.security_groups().await?;
        // They are those of this revision if they have not become others since.
        match self.store.changes_since(next.version()).await? {
            Changes::Log(later) if !replaces_groups(&later) => {
                let (next, spaces) = next.with_security_groups(groups);
                touched.spaces = spaces;
                Ok((next, touched))
            }
            _ => self.rebuild(current, Reason::Overtaken).await,
        }
    }

    /// The snapshot that holds everything as it is now.
    async fn rebuild(
        &self,
        current: &Snapshot,
        reason: Reason,
    ) -> Result<(Snapshot, Touched), StoreError> {
        let mut state = whole(&*self.store).await?;
        let held = current.version();
        if state.version.life == held.life && !state.version.includes(held) {
            // A backup was restored: what comes now are not the revisions the cells know.
            let begun = self.store.begin_another_life(Some(held)).await?;
            tracing::warn!(version = %begun, was = %held, "The revision fell; another life begins.");
            state = whole(&*self.store).await?;
        }
        let version = state.version.clone();
        let same_life = version.life == held.life;
        let (next, touched) = if same_life {
            current.rebuilt(state)
        } else {
            (Snapshot::of(state, self.tag_length), Touched::everything())
        };
        let why = if same_life { reason.as_str() } else { "life" };
        self.source.metrics.rebuilt(why);
        tracing::info!(why, %version, "Took the whole state anew.");
        Ok((next, touched))
    }
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Inconsistent => "inconsistent",
            Self::Forgotten => "forgotten",
            Self::Unreadable => "unreadable",
            Self::Overtaken => "overtaken",
        }
    }
}

/// Everything, without changes that have no revision yet: whoever was told of such a one would be
/// believed to know nothing of it once it has one. A look finds them and gives them their revision; then
/// everything is read once more, unless somebody changes it faster than that for longer than
/// [`PATIENCE`].
pub(super) async fn whole(store: &dyn PolicyStore) -> Result<State, StoreError> {
    whole_within(PATIENCE, store).await
}

pub(super) async fn whole_within(
    patience: Duration,
    store: &dyn PolicyStore,
) -> Result<State, StoreError> {
    let deadline = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    loop {
        let state = store.state().await?;
        match store.changes_since(&state.version).await {
            Ok(Changes::Forgotten) => {}
            Ok(Changes::Log(_)) | Err(StoreError::Unreadable { .. }) => return Ok(state),
            Err(error) => return Err(error),
        }
        if Instant::now() + pause > deadline {
            return Err(StoreError::TooSlow {
                doing: "reading everything between two changes of an older server",
            });
        }
        sleep(pause).await;
        pause = (2 * pause).min(LOOK_EVERY);
    }
}

fn replaces_groups(log: &[(Revision, Change)]) -> bool {
    log.iter().any(|(_, change)| *change == Change::SecurityGroupsReplaced)
}
