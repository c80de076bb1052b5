//! PostgreSQL. Batches travel as arrays, one per column, and are put together by `unnest`, so that the
//! number of statements does not depend on the number of policies.

mod audit;
mod changes;
mod connect;
mod group_receipts;
mod hints;
mod leaders;
mod leases;
mod policies;
mod quarantine;
mod receipts;
mod schema;
mod security_groups;
mod tags;

use std::{net::Ipv4Addr, time::Duration};

use async_trait::async_trait;
use policy::{Lease, Policy, Revision, SecurityGroup, Tag, TagLength, TaggedPolicy};
use sqlx::PgPool;

use hints::Hints;

use crate::{
    AssignedTag, AuditEntry, AuditQuery, Change, DatabaseServer, Filter, NumberedGroup, Options,
    StoreError,
    error::Doing,
    pooled::{Pooled, lend},
    row::{GroupReceiptRow, HeardRow, ReceiptRow},
    session::{Backend, Found, HeldLease, Position, Purpose, Session},
};

/// Writers queue at this row, and nobody else's statements run in between. What a change concerns is a
/// few rows, and each has an index by which it is found, or which has it first. The planner, that knows
/// nothing of tables just filled or emptied, must not be tempted to read or sort whole ones. The
/// server does not wait for one of us that falls silent while it holds the lock: we never pause there,
/// so it is the network that has lost us.
const BEGIN_WRITE: &str = "BEGIN;
    SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off;
    SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off; SET LOCAL join_collapse_limit = 1;
    SET LOCAL idle_in_transaction_session_timeout = '5s';
    SELECT id FROM policies_info FOR UPDATE";

const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

pub(crate) struct Postgres {
    pool: PgPool,
    hints: Hints,
}

/// A transaction, or a connection for single statements.
pub(crate) struct PostgresSession(Pooled<sqlx::Postgres>);

impl Postgres {
    pub(crate) async fn open(
        server: &DatabaseServer,
        options: &Options,
    ) -> Result<Self, StoreError> {
        let pool = connect::pool(server, options).await?;
        schema::bring_up_to_date(&pool, server, options).await?;
        Ok(Self { pool, hints: Hints::from(connect::connect_options(server)) })
    }
}

#[async_trait]
impl Backend for Postgres {
    type Session = PostgresSession;

    async fn write(&self) -> Result<PostgresSession, StoreError> {
        Pooled::begin(&self.pool, BEGIN_WRITE, "starting to write").await.map(PostgresSession)
    }

    async fn read(&self) -> Result<PostgresSession, StoreError> {
        Pooled::begin(&self.pool, BEGIN_READ, "starting to read").await.map(PostgresSession)
    }

    async fn alone(&self, _: Purpose) -> Result<PostgresSession, StoreError> {
        Pooled::alone(&self.pool, "taking a connection").await.map(PostgresSession)
    }

    async fn hint(&self) {
        self.hints.next().await;
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let doing = "asking for a sign of life";
        let mut connection = lend(&self.pool).await.doing(doing)?;
        sqlx::query("SELECT 1").execute(&mut *connection).await.doing(doing)?;
        Ok(())
    }

    async fn close(&self) {
        self.hints.close();
        self.pool.close().await;
    }

    fn connections(&self) -> u32 {
        self.pool.size() + self.hints.connections()
    }
}

/// `on!(self, what is done)`: the statement has the connection until it is over.
macro_rules! on {
    ($session:ident, $module:ident :: $function:ident ( $($argument:expr),* )) => {{
        let done = $module::$function(&mut $session.0.use_it() $(, $argument)*).await;
        $session.0.free();
        done
    }};
}

#[async_trait]
impl Session for PostgresSession {
    async fn commit(self) -> Result<(), StoreError> {
        self.0.commit().await
    }

    async fn position(&mut self) -> Result<Position, StoreError> {
        on!(self, changes::position())
    }

    async fn advance(&mut self, count: u64) -> Result<(), StoreError> {
        on!(self, changes::advance(count))
    }

    async fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        on!(self, changes::compact(revision))
    }

    async fn touch(&mut self, micros: i64) -> Result<(), StoreError> {
        on!(self, changes::touch(micros))
    }

    async fn explain(&mut self) -> Result<(), StoreError> {
        on!(self, changes::explain())
    }

    async fn renew_life(&mut self) -> Result<(), StoreError> {
        on!(self, changes::renew_life())
    }

    async fn log(&mut self, changes: &[(Revision, Change)]) -> Result<(), StoreError> {
        on!(self, changes::log(changes))
    }

    async fn logged(&mut self, since: Revision) -> Result<Vec<(Revision, Change)>, StoreError> {
        on!(self, changes::logged(since))
    }

    async fn select(&mut self, filter: &Filter) -> Result<Vec<TaggedPolicy>, StoreError> {
        on!(self, policies::select(filter))
    }

    async fn find(&mut self, policies: &[&Policy]) -> Result<Vec<Found>, StoreError> {
        on!(self, policies::find(policies))
    }

    async fn insert(&mut self, policies: &[TaggedPolicy]) -> Result<(), StoreError> {
        on!(self, policies::insert(policies))
    }

    async fn remove(&mut self, found: &[Found]) -> Result<(), StoreError> {
        on!(self, policies::remove(found))
    }

    async fn seed(&mut self, length: TagLength) -> Result<(), StoreError> {
        on!(self, tags::seed(length))
    }

    async fn tags(&mut self) -> Result<Vec<AssignedTag>, StoreError> {
        on!(self, tags::list())
    }

    async fn tags_of(&mut self, ids: &[&str]) -> Result<Vec<AssignedTag>, StoreError> {
        on!(self, tags::of(ids))
    }

    async fn free_tags(&mut self, limit: usize) -> Result<Vec<Tag>, StoreError> {
        on!(self, tags::free(limit))
    }

    async fn give_tags(&mut self, given: &[(Tag, &str)], kind: &str) -> Result<(), StoreError> {
        on!(self, tags::give(given, kind))
    }

    async fn release_tags(&mut self, tags: &[Tag]) -> Result<Vec<(Tag, String)>, StoreError> {
        on!(self, tags::release(tags))
    }

    async fn quarantined_of(&mut self, ids: &[&str]) -> Result<Vec<(Tag, String)>, StoreError> {
        on!(self, quarantine::of(ids))
    }

    async fn quarantine(
        &mut self,
        released: &[(Tag, String)],
        at: Revision,
    ) -> Result<(), StoreError> {
        on!(self, quarantine::add(released, at))
    }

    async fn end_quarantine(&mut self, lifetime: Duration) -> Result<usize, StoreError> {
        on!(self, quarantine::end(lifetime))
    }

    async fn count_quarantined(&mut self) -> Result<usize, StoreError> {
        on!(self, quarantine::count())
    }

    async fn report_server(
        &mut self,
        server: &str,
        confirmed: Option<Revision>,
        lifetime: Duration,
    ) -> Result<bool, StoreError> {
        on!(self, quarantine::report(server, confirmed, lifetime))
    }

    async fn leave_server(&mut self, server: &str) -> Result<(), StoreError> {
        on!(self, quarantine::leave(server))
    }

    async fn is_server_lost(&mut self, silent_for: Duration) -> Result<bool, StoreError> {
        on!(self, quarantine::is_lost(silent_for))
    }

    async fn forget_servers(&mut self, silent_for: Duration) -> Result<(), StoreError> {
        on!(self, quarantine::forget(silent_for))
    }

    async fn confirmed(&mut self) -> Result<Vec<Revision>, StoreError> {
        on!(self, quarantine::confirmed())
    }

    async fn put_receipts(
        &mut self,
        server: &str,
        receipts: &[ReceiptRow],
    ) -> Result<(), StoreError> {
        on!(self, receipts::put(server, receipts))
    }

    async fn receipts(&mut self) -> Result<Vec<HeardRow>, StoreError> {
        on!(self, receipts::list())
    }

    async fn forget_receipts(&mut self, silent_for: Duration) -> Result<u64, StoreError> {
        on!(self, receipts::forget(silent_for))
    }

    async fn put_group_receipts(&mut self, receipts: &[GroupReceiptRow]) -> Result<(), StoreError> {
        on!(self, group_receipts::put(receipts))
    }

    async fn group_receipts(&mut self) -> Result<Vec<GroupReceiptRow>, StoreError> {
        on!(self, group_receipts::list())
    }

    async fn forget_group_receipts(&mut self, silent_for: Duration) -> Result<u64, StoreError> {
        on!(self, group_receipts::forget(silent_for))
    }

    async fn leases(&mut self) -> Result<Vec<HeldLease>, StoreError> {
        on!(self, leases::all())
    }

    async fn insert_lease(&mut self, lease: &Lease, renewed_at: i64) -> Result<(), StoreError> {
        on!(self, leases::insert(lease, renewed_at))
    }

    async fn remove_lease(&mut self, underlay_ip: Ipv4Addr) -> Result<(), StoreError> {
        on!(self, leases::remove(underlay_ip))
    }

    async fn renew_lease(
        &mut self,
        underlay_ip: Ipv4Addr,
        renewed_at: i64,
    ) -> Result<(), StoreError> {
        on!(self, leases::renew(underlay_ip, renewed_at))
    }

    async fn set_lapsed(&mut self, underlay_ip: Ipv4Addr, lapsed: bool) -> Result<(), StoreError> {
        on!(self, leases::set_lapsed(underlay_ip, lapsed))
    }

    async fn are_groups_known(&mut self) -> Result<bool, StoreError> {
        on!(self, security_groups::are_known())
    }

    async fn note_groups_known(&mut self) -> Result<(), StoreError> {
        on!(self, security_groups::note_known())
    }

    async fn security_groups(&mut self) -> Result<Vec<NumberedGroup>, StoreError> {
        on!(self, security_groups::list())
    }

    async fn put_security_groups(&mut self, groups: &[&SecurityGroup]) -> Result<(), StoreError> {
        on!(self, security_groups::put(groups))
    }

    async fn remove_security_groups(&mut self, guids: &[&str]) -> Result<(), StoreError> {
        on!(self, security_groups::remove(guids))
    }

    async fn append_audit(&mut self, entries: &[AuditEntry]) -> Result<(), StoreError> {
        on!(self, audit::append(entries))
    }

    async fn audit(&mut self, query: &AuditQuery) -> Result<Vec<(u64, AuditEntry)>, StoreError> {
        on!(self, audit::list(query))
    }

    async fn lead(
        &mut self,
        group: &str,
        owner: &str,
        lifetime: Duration,
    ) -> Result<bool, StoreError> {
        on!(self, leaders::lead(group, owner, lifetime))
    }

    async fn resign(&mut self, group: &str, owner: &str) -> Result<(), StoreError> {
        on!(self, leaders::resign(group, owner))
    }
}
