//! What every database does the same way: the rules of policies, tags, leases and security groups,
//! told once in terms of a [`Session`], whatever its dialect.
//!
//! Changes of policies go through the [`Writer`], which lets requests that come at the same time
//! share a transaction; the rest is a transaction per call.

mod changes;
mod leases;
mod policies;
mod receipts;
mod security_groups;
mod shared;
mod tags;
mod writer;

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use policy::{Lease, Policy, SecurityGroup, Tag, TaggedPolicy, Version};
use tokio::time::timeout;

use crate::{
    Actor, AssignedTag, AuditEntry, AuditQuery, AuditTrail, CellsReport, Changes, Filter,
    GroupReceiptStore, HeardReceipt, LeadershipStore, LeaseError, LeaseKind, LeasePool, LeaseStore,
    NumberedGroup, Options, PolicyStore, ReceiptStore, SecurityGroupStore, State, StoreError,
    StoreFigures, StorePeaks, StoredGroupReceipt, StoredReceipt, TagQuarantine,
    metered::Metered,
    session::{Backend, HeldLease, Position, Purpose, Session},
};
pub(crate) use tags::can_be_kept;

use changes::Look;
use policies::Kind;
use shared::Shared;
use writer::{Writer, persistently};

/// How long the end may be held up by a database that does not answer. Who stops a process waits for ten
/// seconds.
const FAREWELL: Duration = Duration::from_secs(3);

/// A store on some database.
pub(crate) struct Store<B: Backend> {
    ledger: Arc<Ledger<Metered<B>>>,
    writer: Writer,
    positions: Shared<Position>,
    updates: Shared<Position>,
    seen: Seen,
}

/// The time of the last update, in microseconds since 1970, as of the last look.
#[derive(Debug, Default)]
struct Seen(Mutex<Option<i64>>);

/// The database and the rules by which it is written.
pub(crate) struct Ledger<B> {
    backend: B,
    rules: Rules,
    /// Held by whoever writes. Writers queue here, in order and for nothing, and not at the lock in the
    /// database, each with a connection.
    turn: tokio::sync::Mutex<()>,
}

/// How long reading everything may take at least. A database that tells a hundred thousand policies is
/// not one that does not answer, however little patience is asked for.
const PATIENCE_WITH_EVERYTHING: Duration = Duration::from_secs(60);

/// What is the same for all changes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// How many revisions the log keeps.
    log_kept: u64,
    /// Whether released tags are quarantined where cells report.
    tag_quarantine: bool,
    /// How long one operation may take.
    patience: Duration,
}

impl<B: Backend> Store<B> {
    /// The store on a database whose schema is up to date.
    pub(crate) fn on(backend: B, options: &Options) -> Self {
        let rules = Rules {
            log_kept: options.log_kept,
            tag_quarantine: options.tag_quarantine,
            patience: options.patience,
        };
        let backend = Metered::new(backend);
        let ledger = Arc::new(Ledger { backend, rules, turn: tokio::sync::Mutex::new(()) });
        Self {
            writer: Writer::start(ledger.clone()),
            ledger,
            positions: Shared::new(),
            updates: Shared::new(),
            seen: Seen::default(),
        }
    }
}

/// The result of `work`, if the database gives one in time.
async fn within<T, E: From<StoreError>>(
    patience: Duration,
    doing: &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    timeout(patience, work).await.unwrap_or_else(|_| Err(StoreError::TooSlow { doing }.into()))
}

impl<B: Backend> Ledger<B> {
    /// The result of `work`, if the database gives one in time.
    async fn within<T, E: From<StoreError>>(
        &self,
        doing: &'static str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        within(self.rules.patience, doing, work).await
    }

    /// Begins a change. What somebody else has changed without a revision gets one first.
    async fn begin(&self) -> Result<B::Session, StoreError> {
        let mut session = self.backend.write().await?;
        changes::adopt(&mut session).await?;
        Ok(session)
    }
}

/// One call, one transaction that reads: `read!(store, "doing", |session| what is read)`.
macro_rules! read {
    ($store:expr, $doing:literal, |$session:ident| $work:expr) => {
        $store
            .ledger
            .within($doing, async {
                let mut $session = $store.ledger.backend.read().await?;
                $work
            })
            .await
    };
}

/// One call, one statement that reads, or very few of which each stands alone.
macro_rules! ask {
    ($store:expr, $doing:literal, |$session:ident| $work:expr) => {
        $store
            .ledger
            .within($doing, async {
                let mut $session = $store.ledger.backend.alone(Purpose::Reading).await?;
                $work
            })
            .await
    };
}

/// The same, of a statement that writes what is no change: beside those who write changes, and not in
/// turn with them.
macro_rules! note {
    ($store:expr, $doing:literal, |$session:ident| $work:expr) => {
        persistently(|| {
            $store.ledger.within($doing, async {
                let mut $session = $store.ledger.backend.alone(Purpose::Writing).await?;
                $work
            })
        })
        .await
    };
}

/// One call, one transaction that writes, tried again when it was given up in favour of another.
macro_rules! write {
    ($store:expr, $doing:literal, |$session:ident| $work:expr) => {
        persistently(|| {
            $store.ledger.within($doing, async {
                let _turn = $store.ledger.turn.lock().await;
                let mut $session = $store.ledger.begin().await?;
                let done = $work?;
                $session.commit().await?;
                Ok(done)
            })
        })
        .await
    };
}

#[async_trait]
impl<B: Backend> PolicyStore for Store<B> {
    async fn create(&self, policies: &[Policy], actor: &Actor) -> Result<Version, StoreError> {
        self.writer.submit(Kind::Create, policies, actor).await
    }

    async fn delete(&self, policies: &[Policy], actor: &Actor) -> Result<Version, StoreError> {
        self.writer.submit(Kind::Delete, policies, actor).await
    }

    async fn policies(&self, filter: &Filter) -> Result<Vec<TaggedPolicy>, StoreError> {
        read!(self, "listing policies", |session| session.select(filter).await)
    }

    async fn tags(&self) -> Result<Vec<AssignedTag>, StoreError> {
        ask!(self, "listing tags", |session| session.tags().await)
    }

    async fn tag_for(&self, id: &str, kind: &str) -> Result<Tag, StoreError> {
        let held: Result<Option<Tag>, StoreError> =
            ask!(self, "looking up a tag", |session| tags::of(&mut session, id, kind).await);
        if let Some(tag) = held? {
            return Ok(tag);
        }
        let rules = &self.ledger.rules;
        write!(self, "giving out a tag", |session| {
            tags::give(&mut session, rules, id, kind).await
        })
    }

    async fn last_updated(&self) -> Result<i64, StoreError> {
        let position = self.updates.ask(self.position()).await?;
        Ok(nanos(position.last_updated))
    }

    fn last_updated_seen(&self) -> Option<i64> {
        self.seen.get().map(nanos)
    }

    async fn version(&self) -> Result<Version, StoreError> {
        let reading = async {
            match self.position().await? {
                position if position.foreign => self.adopted().await,
                position => Ok(position),
            }
        };
        Ok(self.positions.ask(reading).await?.version)
    }

    async fn changes_since(&self, since: &Version) -> Result<Changes, StoreError> {
        match Look::at(&self.position().await?, since) {
            Look::Nothing => return Ok(Changes::Log(Vec::new())),
            Look::Forgotten => return Ok(Changes::Forgotten),
            Look::Changed | Look::Foreign => {}
        }
        let read: Result<Option<Changes>, StoreError> =
            read!(self, "reading the log of changes", |session| {
                changes::since(&mut session, since).await
            });
        if let Some(changes) = read? {
            return Ok(changes);
        }
        self.adopted().await?;
        Ok(Changes::Forgotten)
    }

    async fn state(&self) -> Result<State, StoreError> {
        let patience = self.ledger.rules.patience.max(PATIENCE_WITH_EVERYTHING);
        within(patience, "reading everything", async {
            let mut session = self.ledger.backend.read().await?;
            changes::state(&mut session).await
        })
        .await
    }

    async fn begin_another_life(&self, seen: Option<&Version>) -> Result<Version, StoreError> {
        write!(self, "beginning another life", |session| {
            changes::begin_another_life(&mut session, seen).await
        })
    }

    async fn hint(&self) {
        self.ledger.backend.hint().await;
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.ledger.within("asking for a sign of life", self.ledger.backend.ping()).await
    }

    fn figures(&self) -> StoreFigures {
        self.ledger.backend.figures()
    }

    fn peaks(&self) -> StorePeaks {
        self.ledger.backend.peaks()
    }

    async fn close(&self) {
        let closed = async {
            self.writer.stop().await;
            self.ledger.backend.close().await;
        };
        // What is left then is closed with the process.
        let _ = timeout(FAREWELL, closed).await;
    }
}

impl<B: Backend> Store<B> {
    /// Where the database stands: one look, one statement.
    async fn position(&self) -> Result<Position, StoreError> {
        let read: Result<Position, StoreError> =
            ask!(self, "reading the revision", |session| session.position().await);
        let position = read?;
        self.seen.set(position.last_updated);
        Ok(position)
    }

    /// Where the database stands, once what somebody else changed has its revision.
    async fn adopted(&self) -> Result<Position, StoreError> {
        write!(self, "giving a change of others a revision", |session| session.position().await)
    }
}

impl Seen {
    fn set(&self, micros: i64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(micros);
    }

    fn get(&self) -> Option<i64> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nanos(micros: i64) -> i64 {
    micros.saturating_mul(1000)
}

#[async_trait]
impl<B: Backend> LeaseStore for Store<B> {
    async fn leases(&self) -> Result<Vec<Lease>, StoreError> {
        ask!(self, "listing leases", |session| leases::list(&mut session).await)
    }

    async fn acquire_lease(
        &self,
        pool: &LeasePool,
        underlay_ip: Ipv4Addr,
        kind: LeaseKind,
        now: SystemTime,
    ) -> Result<(Lease, Version), LeaseError> {
        let rules = &self.ledger.rules;
        write!(self, "acquiring a lease", |session| {
            leases::acquire(&mut session, rules, pool, underlay_ip, kind, now).await
        })
    }

    async fn renew_lease(&self, lease: &Lease, now: SystemTime) -> Result<Version, LeaseError> {
        let rules = &self.ledger.rules;
        write!(self, "renewing a lease", |session| {
            leases::renew(&mut session, rules, lease, now).await
        })
    }

    async fn release_lease(&self, underlay_ip: Ipv4Addr) -> Result<Version, StoreError> {
        let rules = &self.ledger.rules;
        write!(self, "releasing a lease", |session| {
            leases::release(&mut session, rules, underlay_ip).await
        })
    }

    async fn leases_renewed_within(
        &self,
        age: Duration,
        now: SystemTime,
    ) -> Result<usize, StoreError> {
        let held: Result<Vec<HeldLease>, StoreError> =
            ask!(self, "counting leases", |session| session.leases().await);
        Ok(held?.iter().filter(|held| held.renewed_within(age, now)).count())
    }

    async fn lapse_leases(&self, expiry: Duration, now: SystemTime) -> Result<usize, StoreError> {
        let held: Result<Vec<HeldLease>, StoreError> =
            ask!(self, "looking over the leases", |session| session.leases().await);
        if !held?.iter().any(|held| held.lapses(expiry, now)) {
            return Ok(0);
        }
        let rules = &self.ledger.rules;
        write!(self, "letting leases lapse", |session| {
            leases::lapse(&mut session, rules, expiry, now).await
        })
    }
}

#[async_trait]
impl<B: Backend> SecurityGroupStore for Store<B> {
    async fn replace_security_groups(
        &self,
        groups: &[SecurityGroup],
    ) -> Result<Version, StoreError> {
        let rules = &self.ledger.rules;
        write!(self, "replacing security groups", |session| {
            security_groups::replace(&mut session, rules, groups).await
        })
    }

    async fn announce_security_groups(&self, seen: &Version) -> Result<Version, StoreError> {
        let rules = &self.ledger.rules;
        write!(self, "announcing security groups", |session| {
            security_groups::announce(&mut session, rules, seen).await
        })
    }

    async fn security_groups(&self) -> Result<Option<Vec<NumberedGroup>>, StoreError> {
        ask!(self, "listing security groups", |session| security_groups::known(&mut session).await)
    }
}

#[async_trait]
impl<B: Backend> AuditTrail for Store<B> {
    async fn audit(&self, query: &AuditQuery) -> Result<Vec<(u64, AuditEntry)>, StoreError> {
        ask!(self, "reading the audit trail", |session| session.audit(query).await)
    }
}

#[async_trait]
impl<B: Backend> TagQuarantine for Store<B> {
    async fn report_cells(&self, server: &str, report: CellsReport) -> Result<usize, StoreError> {
        note!(self, "noting what cells enforce", |session| {
            tags::report_cells(&mut session, server, report).await
        })
    }

    async fn take_leave(&self, server: &str) -> Result<(), StoreError> {
        note!(self, "noting that a server ends", |session| session.leave_server(server).await)
    }

    async fn is_server_lost(&self, silent_for: Duration) -> Result<bool, StoreError> {
        ask!(self, "looking for lost servers", |session| {
            session.is_server_lost(silent_for).await
        })
    }

    async fn quarantined_tags(&self) -> Result<usize, StoreError> {
        ask!(self, "counting quarantined tags", |session| session.count_quarantined().await)
    }
}

#[async_trait]
impl<B: Backend> ReceiptStore for Store<B> {
    async fn write_receipts(
        &self,
        server: &str,
        receipts: &[StoredReceipt],
    ) -> Result<(), StoreError> {
        let rows = receipts::last_words(receipts);
        if rows.is_empty() {
            return Ok(());
        }
        note!(self, "writing what cells said", |session| session.put_receipts(server, &rows).await)
    }

    async fn receipts(&self) -> Result<Vec<HeardReceipt>, StoreError> {
        let rows: Result<Vec<_>, StoreError> =
            ask!(self, "reading what cells said", |session| session.receipts().await);
        rows?.into_iter().map(HeardReceipt::try_from).collect()
    }

    async fn forget_receipts(&self, silent_for: Duration) -> Result<u64, StoreError> {
        note!(self, "forgetting servers that are gone", |session| {
            let forgotten = session.forget_receipts(silent_for).await?;
            session.forget_servers(silent_for).await?;
            Ok(forgotten)
        })
    }
}

#[async_trait]
impl<B: Backend> GroupReceiptStore for Store<B> {
    async fn write_group_receipts(
        &self,
        receipts: &[StoredGroupReceipt],
    ) -> Result<(), StoreError> {
        let rows = receipts::last_words_of_groups(receipts);
        if rows.is_empty() {
            return Ok(());
        }
        note!(self, "writing what cells said of groups", |session| {
            session.put_group_receipts(&rows).await
        })
    }

    async fn group_receipts(&self) -> Result<Vec<StoredGroupReceipt>, StoreError> {
        let rows: Result<Vec<_>, StoreError> =
            ask!(self, "reading what cells said of groups", |session| {
                session.group_receipts().await
            });
        rows?.into_iter().map(StoredGroupReceipt::try_from).collect()
    }

    async fn forget_group_receipts(&self, silent_for: Duration) -> Result<u64, StoreError> {
        note!(self, "forgetting cells that are gone", |session| {
            session.forget_group_receipts(silent_for).await
        })
    }
}

#[async_trait]
impl<B: Backend> LeadershipStore for Store<B> {
    async fn lead(&self, group: &str, owner: &str, lifetime: Duration) -> Result<bool, StoreError> {
        write!(self, "asking for the lead", |session| session.lead(group, owner, lifetime).await)
    }

    async fn resign(&self, group: &str, owner: &str) -> Result<(), StoreError> {
        write!(self, "giving the lead back", |session| session.resign(group, owner).await)
    }
}
