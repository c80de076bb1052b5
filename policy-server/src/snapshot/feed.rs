//! Keeps the snapshot current: woken by this server's own writes, and in any case looking at the
//! revision every [`LOOK_EVERY`], since other servers may share the database (design §2.2).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use policy::{TagLength, Version};
use policy_store::{Changes, PolicyStore, StoreError};
use thiserror::Error;
use tokio::{
    sync::{Notify, watch},
    time::{MissedTickBehavior, interval, timeout},
};

use super::Snapshot;

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How often security groups are compared with the database's. A syncer of the existing system, which may
/// run beside ours while they are being exchanged, changes them and leaves no trace but that.
const COMPARE_EVERY: Duration = Duration::from_secs(10);

/// How long a writer waits for the snapshot to hold what it wrote. It takes a millisecond or so;
/// only a database in trouble makes it longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The current snapshot, for readers.
#[derive(Clone)]
pub(crate) struct Feed {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    nudge: Arc<Notify>,
    compared: Compared,
}

/// The task that keeps it current.
pub(crate) struct Feeder {
    store: Arc<dyn PolicyStore>,
    tag_length: TagLength,
    snapshots: watch::Sender<Arc<Snapshot>>,
    nudge: Arc<Notify>,
    compared: Compared,
    failing: bool,
}

/// When the snapshot was last known to be as the database.
#[derive(Clone)]
struct Compared(Arc<Mutex<Instant>>);

/// The snapshot does not get to a version.
#[derive(Debug, Error)]
#[error("the snapshot did not reach {version} within {} s", PATIENCE.as_secs())]
pub(crate) struct Behind {
    version: Version,
}

/// Takes the first snapshot.
pub(crate) async fn start(
    store: Arc<dyn PolicyStore>,
    tag_length: TagLength,
) -> Result<(Feed, Feeder), StoreError> {
    let first = Snapshot::of(store.state().await?, tag_length);
    let (sender, receiver) = watch::channel(Arc::new(first));
    let nudge = Arc::new(Notify::new());
    let compared = Compared(Arc::new(Mutex::new(Instant::now())));
    let feed = Feed { snapshots: receiver, nudge: nudge.clone(), compared: compared.clone() };
    let feeder = Feeder { store, tag_length, snapshots: sender, nudge, compared, failing: false };
    Ok((feed, feeder))
}

impl Feed {
    /// The current snapshot.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// Current and future snapshots.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// How long ago the snapshot was last known to be as the database.
    pub(crate) fn age(&self) -> Duration {
        self.compared.last().elapsed()
    }

    /// Waits until the snapshot holds `version`, which the store has just returned.
    pub(crate) async fn shows(&self, version: &Version) -> Result<(), Behind> {
        let mut snapshots = self.subscribe();
        if snapshots.borrow().version().includes(version) {
            return Ok(());
        }
        self.nudge.notify_one();
        let shown = snapshots.wait_for(|snapshot| snapshot.version().includes(version));
        match timeout(PATIENCE, shown).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Behind { version: version.clone() }),
        }
    }
}

impl Feeder {
    /// Runs until dropped.
    pub(crate) async fn run(mut self) {
        let mut tick = interval(LOOK_EVERY);
        let mut compare = interval(COMPARE_EVERY);
        for timer in [&mut tick, &mut compare] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            let comparing = tokio::select! {
                () = self.nudge.notified() => false,
                _ = tick.tick() => false,
                _ = compare.tick() => true,
            };
            let began = Instant::now();
            let looked = self.look(comparing).await;
            if looked.is_ok() {
                self.compared.at(began);
            }
            match looked {
                Ok(()) if self.failing => {
                    self.failing = false;
                    tracing::info!("The database answers again.");
                }
                Ok(()) => {}
                Err(error) if !self.failing => {
                    self.failing = true;
                    let error = service::log::chain(&error);
                    tracing::error!(
                        error,
                        "Cannot read changes; cells are told what was known last."
                    );
                }
                Err(_) => {}
            }
        }
    }

    async fn look(&self, comparing: bool) -> Result<(), StoreError> {
        let current = self.snapshots.borrow().clone();
        if comparing && self.store.security_groups().await?[..] != current.security_groups()[..] {
            self.store.announce_security_groups(current.version()).await?;
        }
        let next = match self.store.changes_since(current.version()).await {
            Ok(Changes::Log(log)) if log.is_empty() => return Ok(()),
            Ok(Changes::Log(log)) => match current.after(log) {
                Ok(next) if next.is_mostly_memories() => {
                    self.rebuild("to forget apps long gone").await?
                }
                Ok(next) if next.security_groups_version() != current.security_groups_version() => {
                    next.with_security_groups(self.store.security_groups().await?)
                }
                Ok(next) => next,
                Err(error) => {
                    tracing::error!(%error, "The log of changes does not fit the snapshot.");
                    self.rebuild("as the log does not fit").await?
                }
            },
            Ok(Changes::Forgotten) => self.rebuild("as the log does not reach back").await?,
            // A newer server on the same database may log kinds of change that this one cannot know.
            Err(error @ StoreError::Unreadable { .. }) => {
                let next = self.rebuild("as the log cannot be read").await?;
                tracing::warn!(error = service::log::chain(&error), "Passed over the log.");
                next
            }
            Err(error) => return Err(error),
        };
        self.snapshots.send_replace(Arc::new(next));
        Ok(())
    }

    async fn rebuild(&self, why: &'static str) -> Result<Snapshot, StoreError> {
        let state = self.store.state().await?;
        tracing::info!(why, version = %state.version, "Took the whole state anew.");
        Ok(Snapshot::of(state, self.tag_length))
    }
}

impl Compared {
    fn at(&self, moment: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = moment;
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use policy::{Policy, Protocol};
    use policy_store::{Actor, Options, StoreUrl};
    use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

    use super::*;
    use crate::snapshot::Subject;

    fn policy(port: u16) -> Policy {
        Policy {
            source: "web".parse().unwrap(),
            destination: "db".parse().unwrap(),
            protocol: Protocol::Tcp,
            ports: port.to_string().parse().unwrap(),
        }
    }

    async fn store(dir: &tempfile::TempDir) -> Arc<dyn PolicyStore> {
        let url = StoreUrl::Sqlite(dir.path().join("netman.db"));
        let options = Options { log_kept: 1000, ..Options::default() };
        policy_store::open(&url, &options).await.unwrap()
    }

    #[tokio::test]
    async fn a_server_that_was_away_for_long_takes_the_whole_state() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        let (feed, feeder) = start(store.clone(), TagLength::DEFAULT).await.unwrap();
        let mut last = store.create(&[policy(1)], &Actor::system("test")).await.unwrap();
        for _ in 0..600 {
            store.delete(&[policy(2)], &Actor::system("test")).await.unwrap();
            store.create(&[policy(2)], &Actor::system("test")).await.unwrap();
            last = store.delete(&[policy(2)], &Actor::system("test")).await.unwrap();
        }
        assert_eq!(feed.snapshot().version().revision.0, 0, "nobody feeds it yet");
        feeder.look(false).await.unwrap();
        let snapshot = feed.snapshot();
        assert_eq!(*snapshot.version(), last);
        assert_eq!(snapshot.policies_of(&Subject::Everything).len(), 1);
    }

    #[tokio::test]
    async fn a_log_it_cannot_read_does_not_keep_it_from_the_state() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        let (feed, feeder) = start(store.clone(), TagLength::DEFAULT).await.unwrap();
        store.create(&[policy(1)], &Actor::system("test")).await.unwrap();
        let file = SqliteConnectOptions::new().filename(dir.path().join("netman.db"));
        let mut newer = SqliteConnection::connect_with(&file).await.unwrap();
        for statement in [
            "UPDATE netman_revision SET revision = 2",
            "INSERT INTO netman_changes (revision, kind) VALUES (2, 'of-tomorrow')",
        ] {
            sqlx::query(statement).execute(&mut newer).await.unwrap();
        }
        feeder.look(false).await.unwrap();
        let snapshot = feed.snapshot();
        assert_eq!(snapshot.version().revision.0, 2);
        assert_eq!(snapshot.policies_of(&Subject::Everything).len(), 1);
    }

    #[tokio::test]
    async fn what_an_older_syncer_does_is_found_by_comparing() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        let (feed, feeder) = start(store.clone(), TagLength::DEFAULT).await.unwrap();
        let file = SqliteConnectOptions::new().filename(dir.path().join("netman.db"));
        let mut older = SqliteConnection::connect_with(&file).await.unwrap();
        let insert = "INSERT INTO security_groups (guid, name) VALUES ('sg-1', 'dns')";
        sqlx::query(insert).execute(&mut older).await.unwrap();
        feeder.look(false).await.unwrap();
        assert_eq!(feed.snapshot().security_groups_version().revision.0, 0);
        feeder.look(true).await.unwrap();
        let snapshot = feed.snapshot();
        assert_eq!(snapshot.security_groups_version().revision.0, 1);
        assert_eq!(snapshot.security_groups()[0].group.guid, "sg-1");
        feeder.look(true).await.unwrap();
        assert_eq!(*feed.snapshot().version(), *snapshot.version(), "once is enough");
    }

    #[tokio::test]
    async fn without_its_database_it_keeps_the_last_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        store.create(&[policy(1)], &Actor::system("test")).await.unwrap();
        let (feed, feeder) = start(store.clone(), TagLength::DEFAULT).await.unwrap();
        store.close().await;
        assert!(feeder.look(false).await.is_err());
        assert_eq!(feed.snapshot().policies_of(&Subject::Everything).len(), 1);
    }
}
