//! SQLite: one file, one writer, readers beside it (write-ahead log).
//!
//! Batches travel as one JSON parameter each and are taken apart by `json_each`, so that the number
//! of statements does not depend on the number of policies.

mod changes;
mod leases;
mod policies;
mod row;
mod tags;

use std::{
    net::Ipv4Addr,
    path::Path,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use policy::{Lease, Policy, Tag, TaggedPolicy, Version};
use sqlx::{
    SqlitePool,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{
    AssignedTag, Changes, Filter, LeaseError, LeaseKind, LeasePool, LeaseStore, Options,
    PolicyStore, State, StoreError, error::Doing,
};

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/sqlite");

/// A write waits this long for another process that writes, e.g. a backup.
const BUSY: Duration = Duration::from_secs(10);

const READERS: u32 = 4;

/// A transaction; rolled back when dropped.
type Transaction = sqlx::Transaction<'static, sqlx::Sqlite>;

pub(crate) struct Sqlite {
    /// One connection, so that writers queue here, in order, and not on SQLite's file lock, where
    /// they would poll and starve.
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Sqlite {
    pub(crate) async fn open(path: &Path, options: &Options) -> Result<Self, StoreError> {
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
        let mut tx = store.write().await?;
        tags::seed(&mut tx, options.tag_length).await?;
        changes::begin_life(&mut tx).await?;
        commit(tx).await?;
        Ok(store)
    }

    /// A transaction that holds the right to write from its first statement, so that it never has
    /// to be tried again.
    async fn write(&self) -> Result<Transaction, StoreError> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.doing("starting to write")
    }

    /// A transaction that sees one instant.
    async fn read(&self) -> Result<Transaction, StoreError> {
        self.readers.begin().await.doing("starting to read")
    }
}

async fn commit(tx: Transaction) -> Result<(), StoreError> {
    tx.commit().await.doing("committing")
}

#[async_trait]
impl PolicyStore for Sqlite {
    async fn create(&self, policies: &[Policy]) -> Result<Version, StoreError> {
        let mut tx = self.write().await?;
        let version = policies::create(&mut tx, policies).await?;
        commit(tx).await.map(|()| version)
    }

    async fn delete(&self, policies: &[Policy]) -> Result<Version, StoreError> {
        let mut tx = self.write().await?;
        let version = policies::delete(&mut tx, policies).await?;
        commit(tx).await.map(|()| version)
    }

    async fn policies(&self, filter: &Filter) -> Result<Vec<TaggedPolicy>, StoreError> {
        policies::select(&mut *self.read().await?, filter).await
    }

    async fn tags(&self) -> Result<Vec<AssignedTag>, StoreError> {
        tags::list(&mut *self.read().await?).await
    }

    async fn tag_for(&self, id: &str, kind: &str) -> Result<Tag, StoreError> {
        let mut tx = self.write().await?;
        let tag = tags::ensure(&mut tx, &[id], kind).await?[id];
        commit(tx).await.map(|()| tag)
    }

    async fn last_updated(&self) -> Result<i64, StoreError> {
        policies::last_updated(&mut *self.read().await?).await
    }

    async fn version(&self) -> Result<Version, StoreError> {
        changes::version(&mut *self.read().await?).await
    }

    async fn changes_since(&self, since: &Version) -> Result<Changes, StoreError> {
        changes::since(&mut *self.read().await?, since).await
    }

    async fn state(&self) -> Result<State, StoreError> {
        let mut tx = self.read().await?;
        Ok(State {
            version: changes::version(&mut tx).await?,
            policies: policies::select(&mut tx, &Filter::All).await?,
            leases: leases::list(&mut tx).await?,
        })
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.readers).await.doing("asking for a sign of life")?;
        Ok(())
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

#[async_trait]
impl LeaseStore for Sqlite {
    async fn leases(&self) -> Result<Vec<Lease>, StoreError> {
        leases::list(&mut *self.read().await?).await
    }

    async fn acquire_lease(
        &self,
        pool: &LeasePool,
        underlay_ip: Ipv4Addr,
        kind: LeaseKind,
        now: SystemTime,
    ) -> Result<(Lease, Version), LeaseError> {
        let mut tx = self.write().await?;
        let leased = leases::acquire(&mut tx, pool, underlay_ip, kind, now).await?;
        commit(tx).await?;
        Ok(leased)
    }

    async fn renew_lease(&self, lease: &Lease, now: SystemTime) -> Result<Version, LeaseError> {
        let mut tx = self.write().await?;
        let version = leases::renew(&mut tx, lease, now).await?;
        commit(tx).await?;
        Ok(version)
    }

    async fn release_lease(&self, underlay_ip: Ipv4Addr) -> Result<Version, StoreError> {
        let mut tx = self.write().await?;
        let version = leases::release(&mut tx, underlay_ip).await?;
        commit(tx).await.map(|()| version)
    }

    async fn lapse_leases(&self, expiry: Duration, now: SystemTime) -> Result<usize, StoreError> {
        let mut tx = self.write().await?;
        let lapsed = leases::lapse(&mut tx, expiry, now).await?;
        commit(tx).await.map(|()| lapsed)
    }
}
