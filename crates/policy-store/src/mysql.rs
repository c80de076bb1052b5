//! MySQL and MariaDB, in the SQL that both accept.
//!
//! Start reading at `connection` for how transactions begin and what becomes of one that is dropped,
//! at `rows` for how batches travel, and at `names` for why names are compared twice.

mod audit;
mod changes;
mod connection;
mod leaders;
mod leases;
mod names;
mod policies;
mod quarantine;
mod rows;
mod schema;
mod security_groups;
mod tags;

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use async_trait::async_trait;
use policy::{Lease, Policy, Revision, SecurityGroup, Tag, TagLength, TaggedPolicy};
use sqlx::AssertSqlSafe;

use crate::{
    AssignedTag, AuditEntry, AuditQuery, Change, DatabaseServer, Filter, NumberedGroup, Options,
    StoreError,
    session::{Backend, Found, HeldLease, Position, Session},
};
use connection::{Connections, Lent};
use names::Names;

/// The beginning of what is counted in microseconds. Sessions are in UTC.
const EPOCH: &str = "TIMESTAMP'1970-01-01 00:00:00'";

/// The database's clock, in milliseconds since 1970.
const NOW_MILLIS: &str = "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)";

/// A transaction; rolled back when dropped.
pub(crate) struct MySqlSession {
    lent: Lent,
    names: Arc<Names>,
}

pub(crate) struct MySql {
    connections: Connections,
    names: Arc<Names>,
}

impl MySql {
    pub(crate) async fn open(
        server: &DatabaseServer,
        options: &Options,
    ) -> Result<Self, StoreError> {
        let names = schema::prepare(server, options).await?;
        let connections = Connections::to(server, options);
        Ok(Self { connections, names: Arc::new(names) })
    }
}

/// A statement put together from our own words and from identifiers that were checked.
fn fixed(statement: String) -> AssertSqlSafe<String> {
    AssertSqlSafe(statement)
}

/// Asks something within the transaction, noting that it was answered.
macro_rules! ask {
    ($session:ident, |$tx:ident| $question:expr) => {{
        let $tx = $session.lent.enter();
        let answer = $question.await;
        $session.lent.leave(&answer);
        answer
    }};
}

#[async_trait]
impl Backend for MySql {
    type Session = MySqlSession;

    async fn write(&self) -> Result<MySqlSession, StoreError> {
        let lent = self.connections.write().await?;
        Ok(MySqlSession { lent, names: self.names.clone() })
    }

    async fn read(&self) -> Result<MySqlSession, StoreError> {
        let lent = self.connections.read().await?;
        Ok(MySqlSession { lent, names: self.names.clone() })
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.connections.ping().await
    }

    async fn close(&self) {
        self.connections.close().await;
    }

    fn connections(&self) -> u32 {
        self.connections.size()
    }
}

#[async_trait]
impl Session for MySqlSession {
    async fn commit(self) -> Result<(), StoreError> {
        self.lent.commit().await
    }

    async fn position(&mut self) -> Result<Position, StoreError> {
        ask!(self, |tx| changes::position(tx))
    }

    async fn advance(&mut self, count: u64) -> Result<(), StoreError> {
        ask!(self, |tx| changes::advance(tx, count))
    }

    async fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        ask!(self, |tx| changes::compact(tx, revision))
    }

    async fn touch(&mut self, micros: i64) -> Result<(), StoreError> {
        ask!(self, |tx| changes::touch(tx, micros))
    }

    async fn explain(&mut self) -> Result<(), StoreError> {
        ask!(self, |tx| changes::explain(tx))
    }

    async fn log(&mut self, changes: &[(Revision, Change)]) -> Result<(), StoreError> {
        ask!(self, |tx| changes::log(tx, changes))
    }

    async fn logged(&mut self, since: Revision) -> Result<Vec<(Revision, Change)>, StoreError> {
        ask!(self, |tx| changes::logged(tx, since))
    }

    async fn select(&mut self, filter: &Filter) -> Result<Vec<TaggedPolicy>, StoreError> {
        ask!(self, |tx| policies::select(tx, &self.names, filter))
    }

    async fn find(&mut self, policies: &[&Policy]) -> Result<Vec<Found>, StoreError> {
        ask!(self, |tx| policies::find(tx, &self.names, policies))
    }

    async fn insert(&mut self, policies: &[TaggedPolicy]) -> Result<(), StoreError> {
        ask!(self, |tx| policies::insert(tx, policies))
    }

    async fn remove(&mut self, found: &[Found]) -> Result<(), StoreError> {
        ask!(self, |tx| policies::remove(tx, found))
    }

    async fn last_updated(&mut self) -> Result<i64, StoreError> {
        ask!(self, |tx| policies::last_updated(tx))
    }

    async fn seed(&mut self, length: TagLength) -> Result<(), StoreError> {
        ask!(self, |tx| tags::seed(tx, length))
    }

    async fn tags(&mut self) -> Result<Vec<AssignedTag>, StoreError> {
        ask!(self, |tx| tags::list(tx))
    }

    async fn tags_of(&mut self, ids: &[&str]) -> Result<Vec<AssignedTag>, StoreError> {
        ask!(self, |tx| tags::of(tx, &self.names, ids))
    }

    async fn free_tags(&mut self, limit: usize) -> Result<Vec<Tag>, StoreError> {
        ask!(self, |tx| tags::free(tx, limit))
    }

    async fn give_tags(&mut self, given: &[(Tag, &str)], kind: &str) -> Result<(), StoreError> {
        ask!(self, |tx| tags::give(tx, given, kind))
    }

    async fn release_tags(&mut self, tags: &[Tag]) -> Result<Vec<(Tag, String)>, StoreError> {
        ask!(self, |tx| tags::release(tx, tags))
    }

    async fn quarantined_of(&mut self, ids: &[&str]) -> Result<Vec<(Tag, String)>, StoreError> {
        ask!(self, |tx| quarantine::of(tx, ids))
    }

    async fn quarantine(
        &mut self,
        released: &[(Tag, String)],
        at: Revision,
    ) -> Result<(), StoreError> {
        ask!(self, |tx| quarantine::add(tx, released, at))
    }

    async fn end_quarantine(&mut self, confirmed: Option<Revision>) -> Result<usize, StoreError> {
        ask!(self, |tx| quarantine::end(tx, confirmed))
    }

    async fn count_quarantined(&mut self) -> Result<usize, StoreError> {
        ask!(self, |tx| quarantine::count(tx))
    }

    async fn report_server(
        &mut self,
        server: &str,
        confirmed: Option<Revision>,
        lifetime: Duration,
    ) -> Result<(), StoreError> {
        ask!(self, |tx| quarantine::report(tx, server, confirmed, lifetime))
    }

    async fn confirmed(&mut self) -> Result<Vec<Revision>, StoreError> {
        ask!(self, |tx| quarantine::confirmed(tx))
    }

    async fn leases(&mut self) -> Result<Vec<HeldLease>, StoreError> {
        ask!(self, |tx| leases::all(tx))
    }

    async fn insert_lease(&mut self, lease: &Lease, renewed_at: i64) -> Result<(), StoreError> {
        ask!(self, |tx| leases::insert(tx, lease, renewed_at))
    }

    async fn remove_lease(&mut self, underlay_ip: Ipv4Addr) -> Result<(), StoreError> {
        ask!(self, |tx| leases::remove(tx, underlay_ip))
    }

    async fn renew_lease(
        &mut self,
        underlay_ip: Ipv4Addr,
        renewed_at: i64,
    ) -> Result<(), StoreError> {
        ask!(self, |tx| leases::renew(tx, underlay_ip, renewed_at))
    }

    async fn set_lapsed(&mut self, underlay_ip: Ipv4Addr, lapsed: bool) -> Result<(), StoreError> {
        ask!(self, |tx| leases::set_lapsed(tx, underlay_ip, lapsed))
    }

    async fn security_groups(&mut self) -> Result<Vec<NumberedGroup>, StoreError> {
        ask!(self, |tx| security_groups::list(tx))
    }

    async fn put_security_groups(&mut self, groups: &[&SecurityGroup]) -> Result<(), StoreError> {
        ask!(self, |tx| security_groups::put(tx, &self.names, groups))
    }

    async fn remove_security_groups(&mut self, guids: &[&str]) -> Result<(), StoreError> {
        ask!(self, |tx| security_groups::remove(tx, &self.names, guids))
    }

    async fn append_audit(&mut self, entries: &[AuditEntry]) -> Result<(), StoreError> {
        ask!(self, |tx| audit::append(tx, entries))
    }

    async fn audit(&mut self, query: &AuditQuery) -> Result<Vec<(u64, AuditEntry)>, StoreError> {
        ask!(self, |tx| audit::list(tx, query))
    }

    async fn lead(
        &mut self,
        group: &str,
        owner: &str,
        lifetime: Duration,
    ) -> Result<bool, StoreError> {
        ask!(self, |tx| leaders::lead(tx, group, owner, lifetime))
    }

    async fn resign(&mut self, group: &str, owner: &str) -> Result<(), StoreError> {
        ask!(self, |tx| leaders::resign(tx, group, owner))
    }
}
