//! Bringing the schema up to date: theirs where we may, ours in any case.

use std::{borrow::Cow, sync::LazyLock, time::Duration};

use policy::TagLength;
use sqlx::{
    Connection, MySqlConnection, MySqlPool,
    migrate::{Migrate, Migrator},
};
use tokio::time::sleep;

use super::{
    cf_networking::{self, Observed},
    changes,
    names::Names,
    tags,
};
use crate::{
    DatabaseServer, Options, Schema, StoreError, cf_schema, connecting::telling_if_slow,
    error::Doing,
};

static OURS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!("../../migrations/mysql");
    // The tables are beside others', who may use the usual name.
    migrator.table_name = Cow::Borrowed("netman_migrations");
    // A newer server of ours may have been here before.
    migrator.set_ignore_missing(true);
    // Whoever is here holds a lock already, and MariaDB knows no lock that is waited for without end.
    migrator.set_locking(false);
    migrator
});

/// How long the lock of another program's migration is respected.
const FOREIGN_LOCK: u32 = 60;

/// Returns how names compare in what is there.
pub(super) async fn bring_up_to_date(
    pool: &MySqlPool,
    server: &DatabaseServer,
    options: &Options,
) -> Result<Names, StoreError> {
    // Of its own: were this cut off, a connection of the pool would go back with the lock.
    let lent = pool.acquire().await.doing("connecting to bring the schema up to date")?;
    let mut connection = lent.detach();
    let locking = lock(&mut connection, options.patience);
    telling_if_slow(server, cf_schema::LOCKED, locking).await?;
    let done = bring(&mut connection, server, options).await;
    // The lock is the session's, and goes with it.
    connection.close().await.doing("unlocking the schema")?;
    done
}

async fn bring(
    connection: &mut MySqlConnection,
    server: &DatabaseServer,
    options: &Options,
) -> Result<Names, StoreError> {
    if options.schema == Schema::Whole {
        theirs(connection, server).await?;
    }
    must_be_there(connection, server).await?;
    ours(connection)
        .await
        .map_err(|source| StoreError::Migrate { store: server.to_string(), source })?;
    if options.schema == Schema::Whole {
        seed(connection, options.tag_length).await?;
    }
    changes::begin_life(connection).await?;
    Names::of(connection).await
}

/// One server at a time. The lock is the session's, so nobody waits for one that was killed.
async fn lock(connection: &mut MySqlConnection, patience: Duration) -> Result<(), StoreError> {
    const DOING: &str = "locking the schema";
    let locked: Option<i64> =
        sqlx::query_scalar("SELECT GET_LOCK(CONCAT('netman.', MD5(DATABASE())), ?)")
            .bind(i64::try_from(patience.as_secs()).unwrap_or(i64::MAX))
            .fetch_one(connection)
            .await
            .doing(DOING)?;
    if locked == Some(1) { Ok(()) } else { Err(StoreError::TooSlow { doing: DOING }) }
}

async fn must_be_there(
    connection: &mut MySqlConnection,
    server: &DatabaseServer,
) -> Result<(), StoreError> {
    let found = Observed::of(connection).await?;
    let there = |table: &&str| found.tables.contains_key(*table);
    if cf_networking::TABLES.iter().all(there) {
        Ok(())
    } else {
        Err(StoreError::NotMigrated { store: server.to_string() })
    }
}

/// Our own tables. A migration that was cut off is noted as not done, and can be run again.
async fn ours(connection: &mut MySqlConnection) -> Result<(), sqlx::migrate::MigrateError> {
    connection.ensure_migrations_table(&OURS.table_name).await?;
    sqlx::query("DELETE FROM netman_migrations WHERE NOT success")
        .execute(&mut *connection)
        .await?;
    // What `run` does with a connection it has; through it, the future could not move between threads.
    OURS.run_direct(None, connection, false).await
}

/// Makes the tables of cf-networking, or brings them up to date.
async fn theirs(
    connection: &mut MySqlConnection,
    server: &DatabaseServer,
) -> Result<(), StoreError> {
    let doing = "making the tables about migrations";
    sqlx::raw_sql(
        "CREATE TABLE IF NOT EXISTS gorp_migrations (
             id VARCHAR(255) NOT NULL PRIMARY KEY, applied_at DATETIME);
         CREATE TABLE IF NOT EXISTS gorp_lock (
             `lock` VARCHAR(255) NOT NULL PRIMARY KEY, acquired_at DATETIME)",
    )
    .execute(&mut *connection)
    .await
    .doing(doing)?;
    cf_schema::tell_of_unknown(&Observed::of(connection).await?.recorded);
    if plan(connection).await?.is_empty() {
        return Ok(());
    }
    let locking = lock_others_out(connection);
    telling_if_slow(server, cf_schema::LOCKED_BY_OTHERS, locking).await?;
    let converged = converge(connection).await;
    sqlx::query("DELETE FROM gorp_lock WHERE `lock` = ?")
        .bind(cf_schema::LOCK)
        .execute(connection)
        .await
        .doing("letting others migrate")?;
    converged
}

async fn converge(connection: &mut MySqlConnection) -> Result<(), StoreError> {
    // Whoever held the lock may have done it all.
    for step in plan(connection).await? {
        sqlx::raw_sql(super::fixed(step))
            .execute(&mut *connection)
            .await
            .doing("bringing the tables of cf-networking up to date")?;
    }
    Ok(())
}

async fn plan(connection: &mut MySqlConnection) -> Result<Vec<String>, StoreError> {
    let observed = Observed::of(connection).await?;
    Ok(cf_networking::plan(&observed, &collation(connection).await?))
}

/// How names compare in tables we make: byte by byte, and without filling the shorter one up. The two
/// servers have different names for that, and MySQL before 8.0.17 has no such thing.
async fn collation(connection: &mut MySqlConnection) -> Result<String, StoreError> {
    const BEST_FIRST: [&str; 3] = ["utf8mb4_nopad_bin", "utf8mb4_0900_bin", "utf8mb4_bin"];
    let known: Vec<String> = sqlx::query_scalar(
        "SELECT CAST(collation_name AS CHAR) FROM information_schema.collations
         WHERE character_set_name = 'utf8mb4'",
    )
    .fetch_all(connection)
    .await
    .doing("asking how texts can be compared")?;
    let best = BEST_FIRST.into_iter().find(|best| known.iter().any(|known| known == best));
    Ok(best.unwrap_or("utf8mb4_bin").to_owned())
}

/// Takes the lock that the existing system's migration takes. One that was left behind is broken
/// after a minute.
async fn lock_others_out(connection: &mut MySqlConnection) -> Result<(), StoreError> {
    let doing = "locking other migrations out";
    sqlx::query("DELETE FROM gorp_lock WHERE acquired_at < NOW() - INTERVAL 1 MINUTE")
        .execute(&mut *connection)
        .await
        .doing(doing)?;
    for _ in 0..FOREIGN_LOCK {
        let taken = sqlx::query(
            "INSERT INTO gorp_lock (`lock`, acquired_at)
             SELECT ?, NOW() FROM (SELECT COUNT(*) AS held FROM gorp_lock) AS locks WHERE held = 0",
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

/// All tags or none, in one transaction.
async fn seed(connection: &mut MySqlConnection, length: TagLength) -> Result<(), StoreError> {
    let mut tx = connection.begin().await.doing("starting to make the tags")?;
    tags::seed(&mut tx, length).await?;
    tx.commit().await.doing("committing the tags")
}
