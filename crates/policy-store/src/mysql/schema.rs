//! Bringing the tables up to date: cf-networking's, where we may, and ours beside them.

use sqlx::{
    MySqlConnection,
    migrate::{Migrate, Migrator},
};

use super::{changes, connection, names::Names, tags};
use crate::{DatabaseServer, Options, Schema, StoreError, error::Doing};

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/mysql");

/// Which of our migrations have been done.
const DONE: &str = "netman_migrations";

/// Makes what is missing; returns how names compare in what is there.
pub(super) async fn prepare(
    server: &DatabaseServer,
    options: &Options,
) -> Result<Names, StoreError> {
    let mut connection = connection::connect(server).await?;
    lock(&mut connection, options).await?;
    if options.schema == Schema::Whole {
        make(&mut connection).await?;
    }
    migrate(&mut connection, server).await?;
    if options.schema == Schema::Whole {
        tags::seed(&mut connection, options.tag_length).await?;
    }
    changes::begin_life(&mut connection).await?;
    Names::of(&mut connection).await
    // The lock goes with the connection.
}

/// One server at a time. A lock of this kind belongs to the connection, so nobody is left waiting for
/// one that was killed.
async fn lock(connection: &mut MySqlConnection, options: &Options) -> Result<(), StoreError> {
    const DOING: &str = "waiting for others to finish the schema";
    let patience = i64::try_from(options.patience.as_secs()).unwrap_or(i64::MAX);
    let locked: Option<i64> =
        sqlx::query_scalar("SELECT GET_LOCK(CONCAT('netman.', MD5(DATABASE())), ?)")
            .bind(patience)
            .fetch_one(connection)
            .await
            .doing(DOING)?;
    if locked == Some(1) { Ok(()) } else { Err(StoreError::TooSlow { doing: DOING }) }
}

/// Our own tables. A migration that was cut off is run again.
async fn migrate(
    connection: &mut MySqlConnection,
    server: &DatabaseServer,
) -> Result<(), StoreError> {
    let failed = |source| StoreError::Migrate { store: server.to_string(), source };
    connection.ensure_migrations_table(DONE).await.map_err(failed)?;
    sqlx::query("DELETE FROM netman_migrations WHERE NOT success")
        .execute(&mut *connection)
        .await
        .doing("forgetting migrations that were cut off")?;
    let mut migrator = Migrator { migrations: MIGRATIONS.migrations.clone(), ..Migrator::DEFAULT };
    migrator.dangerous_set_table_name(DONE);
    migrator.set_locking(false);
    migrator.run(connection).await.map_err(failed)
}

async fn make(connection: &mut MySqlConnection) -> Result<(), StoreError> {
    for statement in [
        "CREATE TABLE IF NOT EXISTS `groups` (id int not null auto_increment primary key, guid varchar(255) character set utf8mb4 collate utf8mb4_nopad_bin unique, type varchar(255) default 'app', index idx_type(type))",
        "CREATE TABLE IF NOT EXISTS destinations (id int not null auto_increment primary key, group_id int, port int, protocol varchar(255), start_port int, end_port int, constraint unique_destination unique(group_id,start_port,end_port,protocol))",
        "CREATE TABLE IF NOT EXISTS policies (id int not null auto_increment primary key, group_id int, destination_id int, unique(group_id,destination_id), constraint policies_destination_id_fkey foreign key (destination_id) references destinations(id))",
        "CREATE TABLE IF NOT EXISTS security_groups (id bigint not null auto_increment primary key, guid varchar(36) not null, name varchar(255) not null, rules mediumtext, staging_default bool default false, running_default bool default false, staging_spaces json, running_spaces json, unique(guid))",
        "CREATE TABLE IF NOT EXISTS policies_info (id int not null auto_increment primary key, last_updated timestamp(6) not null default now(6))",
        "INSERT INTO policies_info (id) VALUES (1) ON DUPLICATE KEY UPDATE id = id",
    ] {
        sqlx::query(statement).execute(&mut *connection).await.doing("making")?;
    }
    Ok(())
}
