//! MySQL and MariaDB, in the SQL that both accept.
//!
//! Start reading at `rows` for how batches travel, and at `names` for why names are compared twice.

mod audit;
mod cf_networking;
mod changes;
mod connect;
mod group_receipts;
mod leaders;
mod leases;
mod names;
mod policies;
mod quarantine;
mod receipts;
mod rows;
mod schema;
mod security_groups;
mod tags;

use std::{future::pending, net::Ipv4Addr, sync::Arc, time::Duration};

use async_trait::async_trait;
use policy::{Lease, Policy, Revision, SecurityGroup, Tag, TagLength, TaggedPolicy};
use sqlx::{AssertSqlSafe, MySqlPool};

use crate::{
    AssignedTag, AuditEntry, AuditQuery, Change, DatabaseServer, Filter, NumberedGroup, Options,
    StoreError,
    error::Doing,
    pooled::{Pooled, lend},
    row::{GroupReceiptRow, HeardRow, ReceiptRow},
    session::{Backend, Found, HeldLease, Position, Purpose, Session},
};
use names::Names;

/// Writers queue at this row. The server does not wait for one of us that falls silent while it holds
/// the lock: we never pause there, so it is the network that has lost us, and others shall not wait.
const BEGIN_WRITE: &str = "SET SESSION wait_timeout = 5; START TRANSACTION READ WRITE;
     SELECT id FROM policies_info FOR UPDATE";

const BEGIN_READ: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
     START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

/// The beginning of what is counted in microseconds. Sessions are in UTC.
const EPOCH: &str = "TIMESTAMP'1970-01-01 00:00:00'";

/// The database's clock, in milliseconds since 1970.
const NOW_MILLIS: &str = "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)";

pub(crate) struct MySql {
    pool: MySqlPool,
    names: Arc<Names>,
}

/// A transaction, or a connection for single statements.
pub(crate) struct MySqlSession {
    transaction: Pooled<sqlx::MySql>,
    names: Arc<Names>,
}

impl MySql {
    pub(crate) async fn open(
        server: &DatabaseServer,
        options: &Options,
    ) -> Result<Self, StoreError> {
        let pool = connect::pool(server, options).await?;
        let names = schema::bring_up_to_date(&pool, server, options).await?;
        Ok(Self { pool, names: Arc::new(names) })
    }

    async fn begin(
        &self,
        statements: &'static str,
        doing: &'static str,
    ) -> Result<MySqlSession, StoreError> {
        let transaction = Pooled::begin(&self.pool, statements, doing).await?;
        Ok(MySqlSession { transaction, names: self.names.clone() })
    }
}

/// A statement put together from our own words and from identifiers that were checked.
fn fixed(statement: String) -> AssertSqlSafe<String> {
    AssertSqlSafe(statement)
}

#[async_trait]
impl Backend for MySql {
    type Session = MySqlSession;

    async fn write(&self) -> Result<MySqlSession, StoreError> {
        self.begin(BEGIN_WRITE, "starting to write").await
    }

    async fn read(&self) -> Result<MySqlSession, StoreError> {
        self.begin(BEGIN_READ, "starting to read").await
    }

    async fn alone(&self, _: Purpose) -> Result<MySqlSession, StoreError> {
        let transaction = Pooled::alone(&self.pool, "taking a connection").await?;
        Ok(MySqlSession { transaction, names: self.names.clone() })
    }

    async fn hint(&self) {
        pending::<()>().await;
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let doing = "asking for a sign of life";
        let mut connection = lend(&self.pool).await.doing(doing)?;
        sqlx::query("SELECT 1").execute(&mut *connection).await.doing(doing)?;
        Ok(())
    }

    async fn close(&self) {
        self.pool.close().await;
    }

    fn connections(&self) -> u32 {
        self.pool.size()
    }
}

/// `on!(self, what is done)`: the statement has the connection until it is over.
macro_rules! on {
    ($session:ident, $module:ident :: $function:ident ( $($argument:expr),* )) => {{
        let done =
            $module::$function(&mut $session.transaction.use_it() $(, $argument)*).await;
        $session.transaction.free();
        done
    }};
}

#[async_trait]
impl Session for MySqlSession {
    async fn commit(self) -> Result<(), StoreError> {
        self.transaction.commit().await
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
        on!(self, policies::select(&self.names, filter))
    }

    async fn find(&mut self, policies: &[&Policy]) -> Result<Vec<Found>, StoreError> {
        on!(self, policies::find(&self.names, policies))
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
        on!(self, tags::of(&self.names, ids))
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
        on!(self, security_groups::put(&self.names, groups))
    }

    async fn remove_security_groups(&mut self, guids: &[&str]) -> Result<(), StoreError> {
        on!(self, security_groups::remove(&self.names, guids))
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
