//! Keeps what cells say in the database, for other servers, and for this one when it is started again.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use policy_store::{PolicyStore, StoreError};
use tokio::time::{self, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    FORGET_AFTER, Receipts,
    here::Unwritten,
    rows::{NOBODY, stored},
};
use crate::server::Server;

/// Between two writes. What cells say meanwhile, however many, is the next one.
const WRITE_EVERY: Duration = Duration::from_millis(250);

/// After a write that failed.
const AGAIN: Duration = Duration::from_secs(2);

/// How often cells are looked over, and compared with what the database has.
const SWEEP_EVERY: Duration = Duration::from_secs(20);

/// How often receipts of cells that are gone are removed.
const FORGET_EVERY: Duration = Duration::from_secs(60 * 60);

/// Runs until `stop`; then writes what is left.
pub(crate) async fn run(server: Arc<Server>, stop: CancellationToken) {
    server.receipts.are_kept.store(true, Ordering::Relaxed);
    Keeper { server: &server, failing: false }.keep(stop).await;
}

struct Keeper<'a> {
    server: &'a Server,
    failing: bool,
}

impl Keeper<'_> {
    async fn keep(mut self, stop: CancellationToken) {
        let Server { receipts, feed, .. } = self.server;
        let mut snapshots = feed.subscribe();
        let mut sweep = interval(SWEEP_EVERY);
        let mut forget = interval(FORGET_EVERY);
        for timer in [&mut sweep, &mut forget] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut may_write = time::Instant::now();
        receipts.moments.note(snapshots.borrow_and_update().version().revision, Instant::now());
        loop {
            let is_news = receipts.here().has_unwritten();
            tokio::select! {
                () = stop.cancelled() => break,
                () = receipts.news.notified(), if !is_news => {}
                () = sleep_until(may_write), if is_news => {
                    let pause = if self.write().await { WRITE_EVERY } else { AGAIN };
                    may_write = time::Instant::now() + pause;
                }
                _ = sweep.tick() => self.sweep().await,
                _ = forget.tick() => self.forget().await,
                Ok(()) = snapshots.changed() => {
                    let revision = snapshots.borrow_and_update().version().revision;
                    receipts.moments.note(revision, Instant::now());
                }
            }
        }
        self.write().await;
    }

    /// Writes what the database does not know yet. Whether it does now.
    async fn write(&mut self) -> bool {
        let Server { receipts, store, metrics, .. } = self.server;
        let unwritten = receipts.here().take_unwritten(Instant::now());
        if unwritten.is_empty() {
            return true;
        }
        let written = tell(receipts, &**store, &unwritten).await;
        match &written {
            Ok(()) => metrics.receipts_written(unwritten.len()),
            Err(_) => receipts.here().put_back(unwritten),
        }
        self.note(written)
    }

    async fn sweep(&mut self) {
        let Server { receipts, store, .. } = self.server;
        receipts.here().sweep(Instant::now());
        let read = receipts.read(&**store).await;
        if self.note(read) {
            let taken_over = self.take_over().await;
            self.note(taken_over);
        }
    }

    /// Notes for how long cells have been silent whose server is gone, before that is forgotten.
    async fn take_over(&self) -> Result<(), StoreError> {
        let Server { receipts, store, .. } = self.server;
        let abandoned: Vec<_> = receipts.rows().abandoned(Instant::now()).map(stored).collect();
        if abandoned.is_empty() { Ok(()) } else { store.write_receipts(NOBODY, &abandoned).await }
    }

    async fn forget(&mut self) {
        let forgotten = self.server.store.forget_receipts(FORGET_AFTER).await;
        self.note(forgotten.map(drop));
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
    for (server, some) in [(receipts.server(), ours), (NOBODY, nobodys)] {
        if !some.is_empty() {
            let some: Vec<_> = some.iter().cloned().map(stored).collect();
            store.write_receipts(server, &some).await?;
        }
    }
    Ok(())
}
