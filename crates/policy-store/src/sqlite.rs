//! SQLite: one file, one writer, readers beside it (write-ahead log).
//!
//! Batches travel as one JSON parameter each and are taken apart by `json_each`, so that the number
//! of statements does not depend on the number of policies.

mod audit;
mod changes;
mod group_receipts;
mod leaders;
mod leases;
mod policies;
mod quarantine;
mod receipts;
mod security_groups;
mod tags;

use std::{
    future::pending,
    net::Ipv4Addr,
    ops::{Deref, DerefMut},
    path::Path,
    time::Duration,
};

use async_trait::async_trait;
use policy::{Lease, Policy, Revision, SecurityGroup, Tag, TagLength, TaggedPolicy};
use sqlx::{
    SqliteConnection, SqlitePool,
    migrate::Migrator,
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{
    AssignedTag, AuditEntry, AuditQuery, Change, Filter, NumberedGroup, Options, StoreError,
    error::Doing,
    row::{GroupReceiptRow, HeardRow, ReceiptRow},
    session::{Backend, Found, HeldLease, Position, Purpose, Session},
};

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/sqlite");

/// A write waits this long for another process that writes, e.g. a backup.
const BUSY: Duration = Duration::from_secs(10);

const READERS: u32 = 4;

/// A transaction, rolled back when dropped, or a connection for single statements.
pub(crate) struct SqliteSession(Lent);

enum Lent {
    Transaction(sqlx::Transaction<'static, sqlx::Sqlite>),
    Alone(PoolConnection<sqlx::Sqlite>),
}

pub(crate) struct Sqlite {
    /// One connection, so that writers queue here, in order, and not on SQLite's file lock, where
    /// they would poll and starve.
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Sqlite {
    pub(crate) async fn open(path: &Path, options: &Options) -> Result<Self, StoreError> {
        let is_new = files::is_blank(path);
        // SQLite gives its other files the mode of this one.
        files::open_to_lock(path)
            .map_err(|source| StoreError::Create { store: path.display().to_string(), source })?;
        let connect = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true)
            .busy_timeout(BUSY)
            .journal_mode(SqliteJournalMode::Wal)
            // A revision that was answered must not be taken again after a power cut.
            .synchronous(SqliteSynchronous::Full);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(connect.clone().create_if_missing(true))
            .await
            .doing("opening the database")?;
        MIGRATIONS
            .run(&writer)
            .await
            .map_err(|source| StoreError::Migrate { store: path.display().to_string(), source })?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(connect.read_only(true))
            .await
            .doing("opening the database for readers")?;
        let store = Self { writer, readers };
        let mut session = store.write().await?;
        session.seed(options.tag_length).await?;
        changes::begin_life(&mut session.0).await?;
        session.commit().await?;
        if is_new {
            // Perhaps another was meant.
            let file = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            tracing::info!(database.file = %file.display(), "Made a new database.");
        }
        Ok(store)
    }
}

#[async_trait]
impl Backend for Sqlite {
    type Session = SqliteSession;

    /// `BEGIN IMMEDIATE`: it holds the right to write from its first statement, so that it never has
    /// to be tried again.
    async fn write(&self) -> Result<SqliteSession, StoreError> {
        self.writer
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map(SqliteSession::begun)
            .doing("starting to write")
    }

    async fn read(&self) -> Result<SqliteSession, StoreError> {
        self.readers.begin().await.map(SqliteSession::begun).doing("starting to read")
    }

    async fn alone(&self, purpose: Purpose) -> Result<SqliteSession, StoreError> {
        let pool = match purpose {
            Purpose::Reading => &self.readers,
            Purpose::Writing => &self.writer,
        };
        let lent = pool.acquire().await.doing("taking a connection")?;
        Ok(SqliteSession(Lent::Alone(lent)))
    }

    /// Servers on one file are told by looking, which costs nothing here.
    async fn hint(&self) {
        pending::<()>().await;
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.readers).await.doing("asking for a sign of life")?;
        Ok(())
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    fn connections(&self) -> u32 {
        self.readers.size() + self.writer.size()
    }
}

impl SqliteSession {
    fn begun(transaction: sqlx::Transaction<'static, sqlx::Sqlite>) -> Self {
        Self(Lent::Transaction(transaction))
    }
}

impl Deref for Lent {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        match self {
            Self::Transaction(transaction) => transaction,
            Self::Alone(connection) => connection,
        }
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        match self {
            Self::Transaction(transaction) => transaction,
            Self::Alone(connection) => connection,
        }
    }
}

#[async_trait]
impl Session for SqliteSession {
    async fn commit(self) -> Result<(), StoreError> {
        match self.0 {
            Lent::Transaction(transaction) => transaction.commit().await.doing("committing"),
            Lent::Alone(_) => Ok(()),
        }
    }

    async fn position(&mut self) -> Result<Position, StoreError> {
        changes::position(&mut self.0).await
    }

    async fn advance(&mut self, count: u64) -> Result<(), StoreError> {
        changes::advance(&mut self.0, count).await
    }

    async fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        changes::compact(&mut self.0, revision).await
    }

    async fn touch(&mut self, micros: i64) -> Result<(), StoreError> {
        changes::touch(&mut self.0, micros).await
    }

    async fn explain(&mut self) -> Result<(), StoreError> {
        changes::explain(&mut self.0).await
    }

    async fn renew_life(&mut self) -> Result<(), StoreError> {
        changes::renew_life(&mut self.0).await
    }

    async fn log(&mut self, changes: &[(Revision, Change)]) -> Result<(), StoreError> {
        changes::log(&mut self.0, changes).await
    }

    async fn logged(&mut self, since: Revision) -> Result<Vec<(Revision, Change)>, StoreError> {
        changes::logged(&mut self.0, since).await
    }

    async fn select(&mut self, filter: &Filter) -> Result<Vec<TaggedPolicy>, StoreError> {
        policies::select(&mut self.0, filter).await
    }

    async fn find(&mut self, policies: &[&Policy]) -> Result<Vec<Found>, StoreError> {
        policies::find(&mut self.0, policies).await
    }

    async fn insert(&mut self, policies: &[TaggedPolicy]) -> Result<(), StoreError> {
        policies::insert(&mut self.0, policies).await
    }

    async fn remove(&mut self, found: &[Found]) -> Result<(), StoreError> {
        policies::remove(&mut self.0, found).await
    }

    async fn seed(&mut self, length: TagLength) -> Result<(), StoreError> {
        tags::seed(&mut self.0, length).await
    }

    async fn tags(&mut self) -> Result<Vec<AssignedTag>, StoreError> {
        tags::list(&mut self.0).await
    }

    async fn tags_of(&mut self, ids: &[&str]) -> Result<Vec<AssignedTag>, StoreError> {
        tags::of(&mut self.0, ids).await
    }

    async fn free_tags(&mut self, limit: usize) -> Result<Vec<Tag>, StoreError> {
        tags::free(&mut self.0, limit).await
    }

    async fn give_tags(&mut self, given: &[(Tag, &str)], kind: &str) -> Result<(), StoreError> {
        tags::give(&mut self.0, given, kind).await
    }

    async fn release_tags(&mut self, tags: &[Tag]) -> Result<Vec<(Tag, String)>, StoreError> {
        tags::release(&mut self.0, tags).await
    }

    async fn quarantined_of(&mut self, ids: &[&str]) -> Result<Vec<(Tag, String)>, StoreError> {
        quarantine::of(&mut self.0, ids).await
    }

    async fn quarantine(
        &mut self,
        released: &[(Tag, String)],
        at: Revision,
    ) -> Result<(), StoreError> {
        quarantine::add(&mut self.0, released, at).await
    }

    async fn end_quarantine(&mut self, lifetime: Duration) -> Result<usize, StoreError> {
        quarantine::end(&mut self.0, lifetime).await
    }

    async fn count_quarantined(&mut self) -> Result<usize, StoreError> {
        quarantine::count(&mut self.0).await
    }

    async fn report_server(
        &mut self,
        server: &str,
        confirmed: Option<Revision>,
        lifetime: Duration,
    ) -> Result<bool, StoreError> {
        quarantine::report(&mut self.0, server, confirmed, lifetime).await
    }

    async fn leave_server(&mut self, server: &str) -> Result<(), StoreError> {
        quarantine::leave(&mut self.0, server).await
    }

    async fn is_server_lost(&mut self, silent_for: Duration) -> Result<bool, StoreError> {
        quarantine::is_lost(&mut self.0, silent_for).await
    }

    async fn forget_servers(&mut self, silent_for: Duration) -> Result<(), StoreError> {
        quarantine::forget(&mut self.0, silent_for).await
    }

    async fn confirmed(&mut self) -> Result<Vec<Revision>, StoreError> {
        quarantine::confirmed(&mut self.0).await
    }

    async fn put_receipts(
        &mut self,
        server: &str,
        receipts: &[ReceiptRow],
    ) -> Result<(), StoreError> {
        receipts::put(&mut self.0, server, receipts).await
    }

    async fn receipts(&mut self) -> Result<Vec<HeardRow>, StoreError> {
        receipts::list(&mut self.0).await
    }

    async fn forget_receipts(&mut self, silent_for: Duration) -> Result<u64, StoreError> {
        receipts::forget(&mut self.0, silent_for).await
    }

    async fn put_group_receipts(&mut self, receipts: &[GroupReceiptRow]) -> Result<(), StoreError> {
        group_receipts::put(&mut self.0, receipts).await
    }

    async fn group_receipts(&mut self) -> Result<Vec<GroupReceiptRow>, StoreError> {
        group_receipts::list(&mut self.0).await
    }

    async fn forget_group_receipts(&mut self, silent_for: Duration) -> Result<u64, StoreError> {
        group_receipts::forget(&mut self.0, silent_for).await
    }

    async fn leases(&mut self) -> Result<Vec<HeldLease>, StoreError> {
        leases::all(&mut self.0).await
    }

    async fn insert_lease(&mut self, lease: &Lease, renewed_at: i64) -> Result<(), StoreError> {
        leases::insert(&mut self.0, lease, renewed_at).await
    }

    async fn remove_lease(&mut self, underlay_ip: Ipv4Addr) -> Result<(), StoreError> {
        leases::remove(&mut self.0, underlay_ip).await
    }

    async fn renew_lease(
        &mut self,
        underlay_ip: Ipv4Addr,
        renewed_at: i64,
    ) -> Result<(), StoreError> {
        leases::renew(&mut self.0, underlay_ip, renewed_at).await
    }

    async fn set_lapsed(&mut self, underlay_ip: Ipv4Addr, lapsed: bool) -> Result<(), StoreError> {
        leases::set_lapsed(&mut self.0, underlay_ip, lapsed).await
    }

    async fn are_groups_known(&mut self) -> Result<bool, StoreError> {
        security_groups::are_known(&mut self.0).await
    }

    async fn note_groups_known(&mut self) -> Result<(), StoreError> {
        security_groups::note_known(&mut self.0).await
    }

    async fn security_groups(&mut self) -> Result<Vec<NumberedGroup>, StoreError> {
        security_groups::list(&mut self.0).await
    }

    async fn put_security_groups(&mut self, groups: &[&SecurityGroup]) -> Result<(), StoreError> {
        security_groups::put(&mut self.0, groups).await
    }

    async fn remove_security_groups(&mut self, guids: &[&str]) -> Result<(), StoreError> {
        security_groups::remove(&mut self.0, guids).await
    }

    async fn append_audit(&mut self, entries: &[AuditEntry]) -> Result<(), StoreError> {
        audit::append(&mut self.0, entries).await
    }

    async fn audit(&mut self, query: &AuditQuery) -> Result<Vec<(u64, AuditEntry)>, StoreError> {
        audit::list(&mut self.0, query).await
    }

    async fn lead(
        &mut self,
        group: &str,
        owner: &str,
        lifetime: Duration,
    ) -> Result<bool, StoreError> {
        leaders::lead(&mut self.0, group, owner, lifetime).await
    }

    async fn resign(&mut self, group: &str, owner: &str) -> Result<(), StoreError> {
        leaders::resign(&mut self.0, group, owner).await
    }
}
