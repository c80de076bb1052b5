//! Bringing the schema up to date: theirs where we may, ours in any case.

use std::{borrow::Cow, sync::LazyLock, time::Duration};

use policy::TagLength;
use sqlx::{Connection, PgConnection, PgPool, migrate::Migrator};
use tokio::time::sleep;

use super::{changes, tags};
use crate::{
    DatabaseServer, Options, Schema, StoreError, cf_schema, connecting::telling_if_slow,
    error::Doing,
};

static OURS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!("../../migrations/postgres");
    // The tables are beside others', who may use the usual name.
    migrator.table_name = Cow::Borrowed("netman_migrations");
    // A newer server of ours may have been here before.
    migrator.set_ignore_missing(true);
    migrator
});

/// Any number; whoever brings the schema up to date holds the lock of this name, one at a time.
const LOCK: i64 = 0x6e65_746d_616e;

/// How long the lock of another program's migration is respected.
const FOREIGN_LOCK: u32 = 60;

pub(super) async fn bring_up_to_date(
    pool: &PgPool,
    server: &DatabaseServer,
    options: &Options,
) -> Result<(), StoreError> {
    let mut connection = pool.acquire().await.doing("connecting to bring the schema up to date")?;
    telling_if_slow(server, cf_schema::LOCKED, lock(&mut connection)).await?;
    bring(&mut connection, server, options).await?;
    // The lock is the session's, and goes with it; so it does where we gave up, with the pool.
    connection.close().await.doing("unlocking the schema")
}

async fn bring(
    connection: &mut PgConnection,
    server: &DatabaseServer,
    options: &Options,
) -> Result<(), StoreError> {
    match options.schema {
        Schema::Whole => theirs(connection, server, options.tag_length).await?,
        Schema::Beside => must_be_there(connection, server).await?,
    }
    // What `run` does with a connection it has; through it, the future could not move between threads.
    OURS.run_direct(None, &mut *connection, false)
        .await
        .map_err(|source| StoreError::Migrate { store: server.to_string(), source })?;
    changes::begin_life(connection).await
}

async fn lock(connection: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(LOCK)
        .execute(connection)
        .await
        .doing("locking the schema")?;
    Ok(())
}

/// The last table that migrations make is looked for, and the row that all writers lock.
async fn must_be_there(
    connection: &mut PgConnection,
    server: &DatabaseServer,
) -> Result<(), StoreError> {
    let doing = "looking for the tables of cf-networking";
    let made: bool = sqlx::query_scalar("SELECT to_regclass('policies_info') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .doing(doing)?;
    let there = made
        && sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM policies_info)")
            .fetch_one(connection)
            .await
            .doing(doing)?;
    if there { Ok(()) } else { Err(StoreError::NotMigrated { store: server.to_string() }) }
}

/// Makes the tables of cf-networking, or brings them up to date, and makes the tags.
async fn theirs(
    connection: &mut PgConnection,
    server: &DatabaseServer,
    length: TagLength,
) -> Result<(), StoreError> {
    sqlx::raw_sql(
        "CREATE TABLE IF NOT EXISTS gorp_migrations (id TEXT PRIMARY KEY, applied_at TIMESTAMPTZ);
         CREATE TABLE IF NOT EXISTS gorp_lock (lock TEXT PRIMARY KEY, acquired_at TIMESTAMPTZ)",
    )
    .execute(&mut *connection)
    .await
    .doing("making the tables about migrations")?;
    let done = recorded(connection).await?;
    cf_schema::tell_of_unknown(&done);
    if !cf_schema::is_complete(&done) {
        let locking = lock_others_out(connection);
        telling_if_slow(server, cf_schema::LOCKED_BY_OTHERS, locking).await?;
        let converged = converge(connection).await;
        sqlx::query("DELETE FROM gorp_lock WHERE lock = $1")
            .bind(cf_schema::LOCK)
            .execute(&mut *connection)
            .await
            .doing("letting others migrate")?;
        converged?;
    }
    let mut tx = connection.begin().await.doing("starting to make the tags")?;
    tags::seed(&mut tx, length).await?;
    tx.commit().await.doing("committing the tags")
}

async fn recorded(connection: &mut PgConnection) -> Result<Vec<String>, StoreError> {
    sqlx::query_scalar("SELECT id FROM gorp_migrations")
        .fetch_all(connection)
        .await
        .doing("reading which migrations are done")
}

async fn converge(connection: &mut PgConnection) -> Result<(), StoreError> {
    let doing = "bringing the tables of cf-networking up to date";
    let mut tx = connection.begin().await.doing(doing)?;
    if cf_schema::has_egress_tables(&recorded(&mut tx).await?) {
        for table in cf_schema::EGRESS_TABLES {
            let drop = format!("DROP TABLE IF EXISTS {table} CASCADE");
            sqlx::query(sqlx::AssertSqlSafe(drop)).execute(&mut *tx).await.doing(doing)?;
        }
    }
    sqlx::raw_sql(include_str!("cf_networking.sql")).execute(&mut *tx).await.doing(doing)?;
    sqlx::query(
        "INSERT INTO gorp_migrations (id, applied_at) SELECT id, now() FROM unnest($1::text[]) AS id
         ON CONFLICT DO NOTHING",
    )
    .bind(cf_schema::migration_ids())
    .execute(&mut *tx)
    .await
    .doing("recording migrations")?;
    tx.commit().await.doing(doing)
}

/// Takes the lock that the existing system's migration takes. One that was left behind is broken
/// after a minute.
async fn lock_others_out(connection: &mut PgConnection) -> Result<(), StoreError> {
    let doing = "locking other migrations out";
    sqlx::query("DELETE FROM gorp_lock WHERE acquired_at < now() - interval '1 minute'")
        .execute(&mut *connection)
        .await
        .doing(doing)?;
    for _ in 0..FOREIGN_LOCK {
        let taken = sqlx::query(
            "INSERT INTO gorp_lock (lock, acquired_at) VALUES ($1, now()) ON CONFLICT DO NOTHING",
        )
        .bind(cf_schema::LOCK)
        .execute(&mut *connection)
        .await
        .doing(doing)?;
        if taken.rows_affected() == 1 {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}
