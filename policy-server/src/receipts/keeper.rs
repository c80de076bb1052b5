//! Keeps what cells say in the database, for other servers, and for this one when it is started again.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use policy_store::{PolicyStore, StoreError};
use tokio::{
    task::spawn_blocking,
    time::{self, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    FORGET_AFTER, Receipts,
    here::Unwritten,
    rows::{Ago, NOBODY, stored},
};
use crate::{server::Server, snapshot::feed::Feed};

/// Between two writes. What cells say meanwhile, however many, is the next one.
const WRITE_EVERY: Duration = Duration::from_millis(250);

/// While many cells are told something, what they say waits, but no longer than this.
const AT_THE_LATEST: Duration = Duration::from_secs(1);

/// Ages are written in whole units of this.
const UNIT: Duration = Duration::from_millis(1);

/// After a write that failed.
const AGAIN: Duration = Duration::from_secs(2);

/// How often it is looked which cells have left.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// How often cells are compared with what the database has.
const COMPARE_EVERY: Duration = Duration::from_secs(20);

/// How often receipts of cells that are gone are removed.
const FORGET_EVERY: Duration = Duration::from_secs(60 * 60);

/// Runs until `stop`; then writes what is left, and takes leave.
pub(crate) async fn run(server: Arc<Server>, stop: CancellationToken) {
    let Server { receipts, store, feed, .. } = &*server;
    Keeper::new(receipts, &**store, feed).keep(stop).await;
}

struct Keeper<'a> {
    receipts: &'a Receipts,
    store: &'a dyn PolicyStore,
    feed: &'a Feed,
    failing: bool,
    failing_of_groups: bool,
    /// Before that, nothing of groups is written again.
    groups_after: time::Instant,
}

impl<'a> Keeper<'a> {
    fn new(receipts: &'a Receipts, store: &'a dyn PolicyStore, feed: &'a Feed) -> Self {
        let groups_after = time::Instant::now();
        Self { receipts, store, feed, failing: false, failing_of_groups: false, groups_after }
    }

    async fn keep(mut self, stop: CancellationToken) {
        let receipts = self.receipts;
        receipts.are_kept.store(true, Ordering::Relaxed);
        let mut snapshots = self.feed.subscribe();
        let mut look = interval(LOOK_EVERY);
        let mut compare = interval(COMPARE_EVERY);
        let mut forget = interval(FORGET_EVERY);
        for timer in [&mut look, &mut compare, &mut forget] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut may_write = time::Instant::now();
        let mut news_since = None;
        receipts.moments.note(snapshots.borrow_and_update().version().revision, Instant::now());
        loop {
            let is_news = receipts.here().has_unwritten() || self.may_write_groups();
            if is_news {
                news_since.get_or_insert_with(time::Instant::now);
            }
            let write_at = self.write_at(may_write, news_since);
            tokio::select! {
                () = stop.cancelled() => break,
                () = receipts.news.notified(), if !is_news => {}
                () = sleep_until(write_at), if is_news => {
                    news_since = None;
                    let pause = if self.write().await { WRITE_EVERY } else { AGAIN };
                    may_write = time::Instant::now() + pause;
                }
                _ = look.tick() => receipts.here().sweep(Instant::now()),
                _ = compare.tick() => self.compare().await,
                _ = forget.tick() => self.forget().await,
                Ok(()) = snapshots.changed() => {
                    let revision = snapshots.borrow_and_update().version().revision;
                    receipts.moments.note(revision, Instant::now());
                }
            }
        }
        self.take_leave().await;
    }

    /// When to write what there is since `news_since`: as soon as may be, but after the answers to many.
    fn write_at(
        &self,
        may_write: time::Instant,
        news_since: Option<time::Instant>,
    ) -> time::Instant {
        let rests_until = self.feed.waiting().rests_until();
        let after_answers = rests_until
            .zip(news_since)
            .map(|(rests_until, since)| rests_until.min(since + AT_THE_LATEST));
        after_answers.map_or(may_write, |after| after.max(may_write))
    }

    /// Lets go of all cells. If none is there that could say more, and everything is written that they
    /// said, nobody need ever ask whether something is lost.
    async fn take_leave(&mut self) {
        let receipts = self.receipts;
        receipts.here().part();
        let is_written = self.write_of_policies().await;
        // Whether groups are written is no matter of who confirms what.
        self.write_of_groups().await;
        if is_written && !receipts.here().speaks_for_any() {
            let left = self.store.take_leave(receipts.server()).await;
            self.note(left);
        }
    }

    /// Writes what the database does not know yet. Whether it knows of policies now: what is said of groups
    /// holds nobody up.
    async fn write(&mut self) -> bool {
        let is_written = self.write_of_policies().await;
        if self.may_write_groups() {
            self.write_of_groups().await;
        }
        is_written
    }

    /// Whether there is anything to write of groups, and it did not just fail.
    fn may_write_groups(&self) -> bool {
        self.receipts.groups.has_unwritten() && self.groups_after <= time::Instant::now()
    }

    async fn write_of_groups(&mut self) {
        let failed = match self.receipts.groups.write(self.store).await {
            Ok(cells) => {
                self.receipts.metrics.receipts_written(cells);
                None
            }
            Err(error) => Some(error),
        };
        if let Some(error) = &failed {
            self.groups_after = time::Instant::now() + AGAIN;
            if !self.failing_of_groups {
                let error = service::log::chain(error);
                tracing::error!(error, "Cannot keep what cells say of security groups.");
            }
        }
        self.failing_of_groups = failed.is_some();
    }

    async fn write_of_policies(&mut self) -> bool {
        let receipts = self.receipts;
        let unwritten = receipts.here().take_unwritten(Instant::now());
        if unwritten.is_empty() {
            return true;
        }
        let written = tell(receipts, self.store, &unwritten).await;
        match &written {
            Ok(()) => receipts.metrics.receipts_written(unwritten.len()),
            Err(_) => receipts.here().put_back(unwritten),
        }
        self.note(written)
    }

    /// All receipts have been read, of which little is kept; and cells that came since the last time have
    /// left behind what their handshakes took.
    async fn compare(&mut self) {
        let read = self.receipts.read(self.store).await;
        self.note(read);
        self.receipts.read_of_groups(self.store).await;
        drop(spawn_blocking(hostnet::heap::trim));
    }

    async fn forget(&mut self) {
        let forgotten = self.store.forget_receipts(FORGET_AFTER).await;
        if self.note(forgotten.map(drop)) {
            let forgotten = self.receipts.groups.forget(self.store).await;
            self.note(forgotten);
        }
    }

    /// Logs that the database is in trouble, once. Whether it is not.
    fn note(&mut self, result: Result<(), StoreError>) -> bool {
        let is_well = result.is_ok();
        match result {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                let error = service::log::chain(&error);
                tracing::error!(
                    error,
                    "Cannot keep what cells say; other servers do not know of it."
                );
            }
            Err(_) => {}
        }
        is_well
    }
}

/// Writes `unwritten`.
async fn tell(
    receipts: &Receipts,
    store: &dyn PolicyStore,
    unwritten: &Unwritten,
) -> Result<(), StoreError> {
    let Unwritten { ours, nobodys } = unwritten;
    if !ours.is_empty() {
        let ours: Vec<_> = ours.iter().cloned().map(stored).collect();
        store.write_receipts(receipts.server(), &ours).await?;
    }
    if !nobodys.is_empty() {
        // Who left as soon as it had spoken did so later, in these units, too.
        let later = |(cell, word, left): Ago| (cell, word, left.saturating_sub(UNIT));
        let nobodys: Vec<_> = nobodys.iter().cloned().map(later).map(stored).collect();
        store.write_receipts(NOBODY, &nobodys).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use policy::TagLength;
    use policy_store::{CellsReport, Options, StoreUrl};
    use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
    use tokio::task::yield_now;

    use super::*;
    use crate::{
        metrics::Metrics,
        receipts::{GroupsWord, Turn, Word},
        snapshot::{Subject, Topic, Touched, Which, feed},
    };

    async fn store(dir: &tempfile::TempDir) -> Arc<dyn PolicyStore> {
        let url = StoreUrl::Sqlite(dir.path().join("netman.db"));
        policy_store::open(&url, &Options::default()).await.unwrap()
    }

    fn word() -> Word {
        let subject = Arc::new(Subject::Apps(["web".parse().unwrap()].into()));
        Word { subject, enforced: None, backend: None, error: None, agent: None }
    }

    /// Keeps receipts while `work` runs, and until everything is written.
    async fn keeping(store: &Arc<dyn PolicyStore>, receipts: &Receipts, work: impl Future) {
        let feed = feed::start(store.clone(), TagLength::DEFAULT, Metrics::new()).await.unwrap().0;
        let stop = CancellationToken::new();
        let keeper = Keeper::new(receipts, &**store, &feed);
        tokio::join!(keeper.keep(stop.clone()), async {
            work.await;
            stop.cancel();
        });
    }

    #[tokio::test]
    async fn what_many_cells_say_is_few_writes() {
        let dir = tempfile::tempdir().unwrap();
        let (store, receipts) = (store(&dir).await, Receipts::new(Metrics::new()));
        let before = store.figures().succeeded;
        let many = async {
            for number in 0..500 {
                drop(receipts.hear(&format!("cell-{number:03}"), None, word()));
                yield_now().await;
            }
        };
        keeping(&store, &receipts, many).await;
        let steps = store.figures().succeeded - before;
        assert!(steps < 100, "{steps} steps of transactions");
        let kept = store.receipts().await.unwrap();
        assert_eq!(kept.len(), 500);
    }

    #[tokio::test]
    async fn while_many_are_answered_what_cells_say_waits_and_not_for_long() {
        let dir = tempfile::tempdir().unwrap();
        let (store, receipts) = (store(&dir).await, Receipts::new(Metrics::new()));
        let feed = feed::start(store.clone(), TagLength::DEFAULT, Metrics::new()).await.unwrap().0;
        let keeper = Keeper::new(&receipts, &*store, &feed);
        let (may_write, news) = (time::Instant::now(), Some(time::Instant::now()));
        assert_eq!(keeper.write_at(may_write, news), may_write);
        let topic = Topic::Policies(word().subject);
        let touched = Touched { apps: Which::All, ..Touched::default() };
        let mut waiting: Vec<_> = (0..400).map(|_| feed.waiting().register(&topic)).collect();
        feed.waiting().wake(&touched);
        let rests_until = feed.waiting().rests_until().unwrap();
        assert_eq!(keeper.write_at(may_write, news), rests_until);
        waiting.extend((0..20_000).map(|_| feed.waiting().register(&topic)));
        feed.waiting().wake(&touched);
        assert_eq!(keeper.write_at(may_write, news), news.unwrap() + AT_THE_LATEST);
        let later = news.unwrap() + 2 * AT_THE_LATEST;
        assert_eq!(keeper.write_at(later, news), later);
    }

    #[tokio::test]
    async fn who_ends_takes_leave_unless_a_cell_is_still_there() {
        for is_held in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let (store, receipts) = (store(&dir).await, Receipts::new(Metrics::new()));
            store.report_cells(receipts.server(), CellsReport::Silent).await.unwrap();
            let hearing = receipts.hear("cell-1", None, word());
            let held = is_held.then_some(hearing);
            keeping(&store, &receipts, async {}).await;
            let server = store.receipts().await.unwrap()[0].server.clone();
            assert_eq!(server, if is_held { receipts.server() } else { NOBODY });
            sleep_until(time::Instant::now() + Duration::from_millis(5)).await;
            assert_eq!(store.is_server_lost(Duration::ZERO).await.unwrap(), is_held);
            drop(held);
        }
    }

    #[tokio::test]
    async fn what_is_said_of_groups_holds_up_neither_receipts_nor_leave() {
        let dir = tempfile::tempdir().unwrap();
        let (store, receipts) = (store(&dir).await, Receipts::new(Metrics::new()));
        store.report_cells(receipts.server(), CellsReport::Silent).await.unwrap();
        let file = SqliteConnectOptions::new().filename(dir.path().join("netman.db"));
        let mut by_hand = SqliteConnection::connect_with(&file).await.unwrap();
        let away = "ALTER TABLE netman_group_receipts RENAME TO away";
        sqlx::query(away).execute(&mut by_hand).await.unwrap();
        let spaces = Arc::new(["space".to_owned()].into());
        let of_groups = GroupsWord { spaces, enforced: None, error: None };
        drop(receipts.hear_of_groups("cell-1", Turn::default(), of_groups));
        let hearing = receipts.hear("cell-1", None, word());
        let feed = feed::start(store.clone(), TagLength::DEFAULT, Metrics::new()).await.unwrap().0;
        let mut keeper = Keeper::new(&receipts, &*store, &feed);
        assert!(keeper.write().await && !receipts.here().has_unwritten());
        assert!(receipts.groups.has_unwritten() && !keeper.may_write_groups(), "not at once again");
        drop(hearing);
        keeping(&store, &receipts, async {}).await;
        assert!(receipts.groups.has_unwritten());
        assert_eq!(store.receipts().await.unwrap()[0].server, NOBODY);
        sleep_until(time::Instant::now() + Duration::from_millis(5)).await;
        assert!(!store.is_server_lost(Duration::ZERO).await.unwrap());
    }

    #[tokio::test]
    async fn who_asks_of_groups_shares_what_was_read_a_moment_ago() {
        let dir = tempfile::tempdir().unwrap();
        let (store, receipts) = (store(&dir).await, Receipts::new(Metrics::new()));
        let before = store.figures().succeeded;
        for _ in 0..50 {
            receipts.read_of_groups(&*store).await;
        }
        let steps = store.figures().succeeded - before;
        assert!((1..50).contains(&steps), "{steps} steps of transactions");
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let (away, receipts) = (store(&dir).await, Receipts::new(Metrics::new()));
        let feed = feed::start(away.clone(), TagLength::DEFAULT, Metrics::new()).await.unwrap().0;
        drop(receipts.hear("cell-1", None, word()));
        away.close().await;
        let mut keeper = Keeper::new(&receipts, &*away, &feed);
        assert!(!keeper.write().await);
        assert!(receipts.here().has_unwritten());
        let back = store(&dir).await;
        keeping(&back, &receipts, async {}).await;
        assert_eq!(back.receipts().await.unwrap().len(), 1);
    }
}
