//! A database whose use is counted, for whoever watches over it (spec/policy-server.md §11).

use std::{
    future::ready,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use policy::{Lease, Policy, Revision, SecurityGroup, Tag, TagLength, TaggedPolicy};
use tokio::time::Instant;

use crate::{
    AssignedTag, AuditEntry, AuditQuery, Change, Filter, NumberedGroup, StoreError,
    row::{GroupReceiptRow, HeardRow, ReceiptRow},
    session::{Backend, Found, HeldLease, Position, Purpose, Session},
};

/// How a database was used so far. A query is one step of a transaction, its beginning and its
/// commit among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreFigures {
    /// Open connections, now.
    pub connections: u32,
    /// Queries that were answered; finding nothing is an answer.
    pub succeeded: u64,
    /// Queries that were refused, or given up before the answer.
    pub failed: u64,
    /// Queries that are not answered yet.
    pub in_flight: u64,
}

/// The most there was at once since it was last asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StorePeaks {
    /// Queries in flight.
    pub in_flight: u64,
    /// The longest a query took.
    pub duration: Duration,
}

/// A backend, and what is counted of it.
pub(crate) struct Metered<B> {
    backend: B,
    meter: Arc<Meter>,
}

/// A transaction of a [`Metered`] backend.
pub(crate) struct MeteredSession<S> {
    session: S,
    meter: Arc<Meter>,
}

#[derive(Debug, Default)]
struct Meter {
    succeeded: AtomicU64,
    failed: AtomicU64,
    in_flight: AtomicU64,
    most_in_flight: AtomicU64,
    /// Nanoseconds.
    longest: AtomicU64,
}

/// A query that has no answer yet. One that is given up counts as failed.
struct Query<'a> {
    meter: &'a Meter,
    began: Instant,
    succeeded: bool,
}

impl<B: Backend> Metered<B> {
    pub(crate) fn new(backend: B) -> Self {
        Self { backend, meter: Arc::default() }
    }

    pub(crate) fn figures(&self) -> StoreFigures {
        StoreFigures {
            connections: self.backend.connections(),
            succeeded: self.meter.succeeded.load(Ordering::Relaxed),
            failed: self.meter.failed.load(Ordering::Relaxed),
            in_flight: self.meter.in_flight.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn peaks(&self) -> StorePeaks {
        self.meter.peaks()
    }

    fn session(&self, session: B::Session) -> MeteredSession<B::Session> {
        MeteredSession { session, meter: self.meter.clone() }
    }
}

impl Meter {
    /// What is in flight now is among the next peaks, too.
    fn peaks(&self) -> StorePeaks {
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        StorePeaks {
            in_flight: self.most_in_flight.swap(in_flight, Ordering::Relaxed),
            duration: Duration::from_nanos(self.longest.swap(0, Ordering::Relaxed)),
        }
    }

    async fn measure<T>(
        &self,
        query: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let mut measuring = Query::begin(self);
        let answer = query.await;
        measuring.succeeded = answer.is_ok();
        answer
    }
}

impl<'a> Query<'a> {
    fn begin(meter: &'a Meter) -> Self {
        let in_flight = 1 + meter.in_flight.fetch_add(1, Ordering::Relaxed);
        meter.most_in_flight.fetch_max(in_flight, Ordering::Relaxed);
        Self { meter, began: Instant::now(), succeeded: false }
    }
}

impl Drop for Query<'_> {
    fn drop(&mut self) {
        let Meter { succeeded, failed, in_flight, longest, .. } = self.meter;
        in_flight.fetch_sub(1, Ordering::Relaxed);
        let nanos = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        longest.fetch_max(nanos, Ordering::Relaxed);
        let ended = if self.succeeded { succeeded } else { failed };
        ended.fetch_add(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl<B: Backend> Backend for Metered<B> {
    type Session = MeteredSession<B::Session>;

    async fn write(&self) -> Result<Self::Session, StoreError> {
        self.meter.measure(self.backend.write()).await.map(|session| self.session(session))
    }

    async fn read(&self) -> Result<Self::Session, StoreError> {
        self.meter.measure(self.backend.read()).await.map(|session| self.session(session))
    }

    /// No query yet, unless there is nobody to put it to.
    async fn alone(&self, purpose: Purpose) -> Result<Self::Session, StoreError> {
        match self.backend.alone(purpose).await {
            Ok(session) => Ok(self.session(session)),
            Err(error) => self.meter.measure(ready(Err(error))).await,
        }
    }

    async fn hint(&self) {
        self.backend.hint().await;
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.meter.measure(self.backend.ping()).await
    }

    async fn close(&self) {
        self.backend.close().await;
    }

    fn connections(&self) -> u32 {
        self.backend.connections()
    }
}

/// Each step of a transaction, measured.
macro_rules! measured {
    ($($step:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl<S: Session> Session for MeteredSession<S> {
            async fn commit(self) -> Result<(), StoreError> {
                self.meter.measure(self.session.commit()).await
            }

            $(async fn $step(&mut self, $($argument: $kind),*) -> Result<$answer, StoreError> {
                self.meter.measure(self.session.$step($($argument),*)).await
            })*
        }
    };
}

measured! {
    position() -> Position;
    advance(count: u64) -> ();
    compact(revision: Revision) -> ();
    touch(micros: i64) -> ();
    explain() -> ();
    renew_life() -> ();
    log(changes: &[(Revision, Change)]) -> ();
    logged(since: Revision) -> Vec<(Revision, Change)>;
    select(filter: &Filter) -> Vec<TaggedPolicy>;
    find(policies: &[&Policy]) -> Vec<Found>;
    insert(policies: &[TaggedPolicy]) -> ();
    remove(found: &[Found]) -> ();
    seed(length: TagLength) -> ();
    tags() -> Vec<AssignedTag>;
    tags_of(ids: &[&str]) -> Vec<AssignedTag>;
    free_tags(limit: usize) -> Vec<Tag>;
    give_tags(given: &[(Tag, &str)], kind: &str) -> ();
    release_tags(tags: &[Tag]) -> Vec<(Tag, String)>;
    quarantined_of(ids: &[&str]) -> Vec<(Tag, String)>;
    quarantine(released: &[(Tag, String)], at: Revision) -> ();
    end_quarantine(lifetime: Duration) -> usize;
    count_quarantined() -> usize;
    report_server(server: &str, confirmed: Option<Revision>, lifetime: Duration) -> bool;
    leave_server(server: &str) -> ();
    is_server_lost(silent_for: Duration) -> bool;
    forget_servers(silent_for: Duration) -> ();
    confirmed() -> Vec<Revision>;
    put_receipts(server: &str, receipts: &[ReceiptRow]) -> ();
    receipts() -> Vec<HeardRow>;
    forget_receipts(silent_for: Duration) -> u64;
    put_group_receipts(receipts: &[GroupReceiptRow]) -> ();
    group_receipts() -> Vec<GroupReceiptRow>;
    forget_group_receipts(silent_for: Duration) -> u64;
    leases() -> Vec<HeldLease>;
    insert_lease(lease: &Lease, renewed_at: i64) -> ();
    remove_lease(underlay_ip: Ipv4Addr) -> ();
    renew_lease(underlay_ip: Ipv4Addr, renewed_at: i64) -> ();
    set_lapsed(underlay_ip: Ipv4Addr, lapsed: bool) -> ();
    are_groups_known() -> bool;
    note_groups_known() -> ();
    security_groups() -> Vec<NumberedGroup>;
    put_security_groups(groups: &[&SecurityGroup]) -> ();
    remove_security_groups(guids: &[&str]) -> ();
    append_audit(entries: &[AuditEntry]) -> ();
    audit(query: &AuditQuery) -> Vec<(u64, AuditEntry)>;
    lead(group: &str, owner: &str, lifetime: Duration) -> bool;
    resign(group: &str, owner: &str) -> ();
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::{Options, sqlite::Sqlite};

    async fn metered(dir: &tempfile::TempDir) -> Metered<Sqlite> {
        let file = dir.path().join("netman.db");
        Metered::new(Sqlite::open(&file, &Options::default()).await.unwrap())
    }

    #[tokio::test]
    async fn every_step_of_a_transaction_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let database = metered(&dir).await;
        let mut session = database.write().await.unwrap();
        let policies = session.select(&Filter::All).await.unwrap();
        assert!(policies.is_empty(), "finding nothing is an answer");
        session.commit().await.unwrap();
        database.ping().await.unwrap();
        let figures = database.figures();
        assert_eq!((figures.succeeded, figures.failed, figures.in_flight), (4, 0, 0));
        assert!(figures.connections > 0);
    }

    #[tokio::test]
    async fn what_the_database_refuses_has_failed() {
        let dir = tempfile::tempdir().unwrap();
        let database = metered(&dir).await;
        let mut session = database.write().await.unwrap();
        let twice = [1, 2].map(|tag| (Tag::new(tag).unwrap(), "web"));
        session.give_tags(&twice, "app").await.unwrap_err();
        drop(session);
        database.close().await;
        database.ping().await.unwrap_err();
        let figures = database.figures();
        assert_eq!((figures.succeeded, figures.failed), (1, 2));
        assert_eq!(figures.connections, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_that_is_given_up_has_failed() {
        let meter = Meter::default();
        let never = meter.measure(pending::<Result<(), _>>());
        timeout(Duration::from_secs(3), never).await.unwrap_err();
        assert_eq!(meter.failed.load(Ordering::Relaxed), 1);
        assert_eq!(meter.in_flight.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn peaks_are_those_since_they_were_last_asked_for() {
        let meter = Meter::default();
        let takes = |seconds| {
            meter.measure(async move {
                sleep(Duration::from_secs(seconds)).await;
                Ok(())
            })
        };
        let (long, short) = tokio::join!(takes(3), takes(1));
        long.and(short).unwrap();
        let peaks =
            |in_flight, seconds| StorePeaks { in_flight, duration: Duration::from_secs(seconds) };
        assert_eq!(meter.peaks(), peaks(2, 3));
        takes(2).await.unwrap();
        assert_eq!(meter.peaks(), peaks(1, 2));
        assert_eq!(meter.peaks(), peaks(0, 0));
    }
}
