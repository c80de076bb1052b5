//! What every database does the same way: the rules of policies, tags, leases and security groups,
//! told once in terms of a [`Session`], whatever its dialect.
//!
//! Changes of policies go through the [`Writer`], which lets requests that come at the same time
//! share a transaction; the rest is a transaction per call.

mod changes;
mod leases;
mod policies;
mod security_groups;
mod shared;
mod tags;
mod writer;

use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use policy::{Lease, Policy, SecurityGroup, Tag, TaggedPolicy, Version};
use tokio::{sync::Mutex, time::timeout};

use crate::{
    Actor, AssignedTag, AuditEntry, AuditQuery, AuditTrail, CellsReport, Changes, Filter,
    LeadershipStore, LeaseError, LeaseKind, LeasePool, LeaseStore, NumberedGroup, Options,
    PolicyStore, SecurityGroupStore, State, StoreError, StoreFigures, StorePeaks, TagQuarantine,
    metered::Metered,
    session::{Backend, HeldLease, Position, Session},
};
pub(crate) use tags::can_be_kept;

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
    /// Times of the last update, in microseconds since 1970.
    updates: Shared<i64>,
}

/// The database and the rules by which it is written.
pub(crate) struct Ledger<B> {
    backend: B,
    rules: Rules,
    /// Held by whoever writes. Writers queue here, in order and for nothing, and not at the lock in the
    /// database, each with a connection.
    turn: Mutex<()>,
}

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
        let ledger = Arc::new(Ledger { backend, rules, turn: Mutex::new(()) });
        Self {
            writer: Writer::start(ledger.clone()),
            ledger,
            positions: Shared::new(),
            updates: Shared::new(),
        }
    }
}

impl<B: Backend> Ledger<B> {
    /// The result of `work`, if the database gives one in time.
    async fn within<T, E: From<StoreError>>(
        &self,
        doing: &'static str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        timeout(self.rules.patience, work)
            .await
            .unwrap_or_else(|_| Err(StoreError::TooSlow { doing }.into()))
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
        read!(self, "listing tags", |session| session.tags().await)
    }

    async fn tag_for(&self, id: &str, kind: &str) -> Result<Tag, StoreError> {
        let tags: Result<_, StoreError> = write!(self, "giving out a tag", |session| {
            tags::ensure(&mut session, &[id], kind).await
        });
        Ok(tags?[id])
    }

    async fn last_updated(&self) -> Result<i64, StoreError> {
        let reading = async {
            read!(self, "reading the time of the last update", |session| {
                session.last_updated().await
            })
        };
        let micros = self.updates.ask(reading).await?;
        Ok(micros.saturating_mul(1000))
    }

    async fn version(&self) -> Result<Version, StoreError> {
        let reading = async {
            let read: Result<Position, StoreError> =
                read!(self, "reading the revision", |session| session.position().await);
            match read? {
                position if position.foreign => self.adopted().await,
                position => Ok(position),
            }
        };
        Ok(self.positions.ask(reading).await?.version)
    }

    async fn changes_since(&self, since: &Version) -> Result<Changes, StoreError> {
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
        read!(self, "reading everything", |session| changes::state(&mut session).await)
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
    /// Where the database stands, once what somebody else changed has its revision.
    async fn adopted(&self) -> Result<Position, StoreError> {
        write!(self, "giving a change of others a revision", |session| session.position().await)
    }
}

#[async_trait]
impl<B: Backend> LeaseStore for Store<B> {
    async fn leases(&self) -> Result<Vec<Lease>, StoreError> {
        read!(self, "listing leases", |session| leases::list(&mut session).await)
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

    async fn lapse_leases(&self, expiry: Duration, now: SystemTime) -> Result<usize, StoreError> {
        let held: Result<Vec<HeldLease>, StoreError> =
            read!(self, "looking over the leases", |session| session.leases().await);
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

    async fn security_groups(&self) -> Result<Vec<NumberedGroup>, StoreError> {
        read!(self, "listing security groups", |session| session.security_groups().await)
    }
}

#[async_trait]
impl<B: Backend> AuditTrail for Store<B> {
    async fn audit(&self, query: &AuditQuery) -> Result<Vec<(u64, AuditEntry)>, StoreError> {
        read!(self, "reading the audit trail", |session| session.audit(query).await)
    }
}

#[async_trait]
impl<B: Backend> TagQuarantine for Store<B> {
    async fn report_cells(&self, server: &str, report: CellsReport) -> Result<usize, StoreError> {
        write!(self, "noting what cells enforce", |session| {
            tags::report_cells(&mut session, server, report).await
        })
    }

    async fn quarantined_tags(&self) -> Result<usize, StoreError> {
        read!(self, "counting quarantined tags", |session| session.count_quarantined().await)
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
