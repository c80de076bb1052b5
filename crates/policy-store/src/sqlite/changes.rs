//! Tables `netman_life`, `netman_revision` and `netman_changes` (design §2.1).

use policy::{Life, Revision, Version};
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::{
    Change, StoreError,
    error::Doing,
    row::{self, ChangeRow},
    session::Position,
};

/// Names the life of a new database.
pub(super) async fn begin_life(tx: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO netman_life (id, life) VALUES (1, ?) ON CONFLICT DO NOTHING")
        .bind(Uuid::new_v4().to_string())
        .execute(tx)
        .await
        .doing("beginning the database's life")?;
    Ok(())
}

/// Life, revision, how far the log was compacted, whether somebody else wrote, and the last update.
type Read = (String, i64, i64, bool, i64);

pub(super) async fn position(tx: &mut SqliteConnection) -> Result<Position, StoreError> {
    let (life, revision, compacted, foreign, last_updated): Read = sqlx::query_as(
        "SELECT life, revision, compacted, explained IS NOT last_updated, last_updated
         FROM netman_life CROSS JOIN netman_revision CROSS JOIN policies_info",
    )
    .fetch_one(tx)
    .await
    .doing("reading the revision")?;
    let version = Version {
        life: Life::new(&life).map_err(|_| StoreError::unreadable("life", life))?,
        revision: row::revision(revision)?,
    };
    Ok(Position { version, compacted: row::revision(compacted)?, foreign, last_updated })
}

pub(super) async fn advance(tx: &mut SqliteConnection, count: u64) -> Result<(), StoreError> {
    sqlx::query("UPDATE netman_revision SET revision = revision + ?")
        .bind(row::stored(Revision(count)))
        .execute(tx)
        .await
        .doing("taking a revision")?;
    Ok(())
}

pub(super) async fn compact(tx: &mut SqliteConnection, to: Revision) -> Result<(), StoreError> {
    sqlx::query("UPDATE netman_revision SET compacted = max(compacted, ?)")
        .bind(row::stored(to))
        .execute(&mut *tx)
        .await
        .doing("noting how far the log reaches back")?;
    sqlx::query("DELETE FROM netman_changes WHERE revision <= ?")
        .bind(row::stored(to))
        .execute(tx)
        .await
        .doing("compacting the log of changes")?;
    Ok(())
}

pub(super) async fn touch(tx: &mut SqliteConnection, micros: i64) -> Result<(), StoreError> {
    sqlx::query("UPDATE policies_info SET last_updated = max(last_updated + 1, ?)")
        .bind(micros)
        .execute(&mut *tx)
        .await
        .doing("noting the time of the update")?;
    explain(tx).await
}

pub(super) async fn explain(tx: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query("UPDATE netman_revision SET explained = (SELECT last_updated FROM policies_info)")
        .execute(tx)
        .await
        .doing("noting whose update it was")?;
    Ok(())
}

pub(super) async fn renew_life(tx: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query("UPDATE netman_life SET life = ?")
        .bind(Uuid::new_v4().to_string())
        .execute(&mut *tx)
        .await
        .doing("beginning another life")?;
    sqlx::query("UPDATE netman_servers SET confirmed = 0 WHERE confirmed IS NOT NULL")
        .execute(tx)
        .await
        .doing("forgetting what cells confirmed in another life")?;
    Ok(())
}

pub(super) async fn log(
    tx: &mut SqliteConnection,
    changes: &[(Revision, Change)],
) -> Result<(), StoreError> {
    let rows: Vec<Value> = changes
        .iter()
        .map(|change| {
            let ChangeRow {
                revision,
                kind,
                source,
                source_tag,
                destination,
                destination_tag,
                protocol,
                start_port,
                end_port,
                underlay_ip,
                overlay_subnet,
                overlay_hwaddr,
            } = ChangeRow::from(change);
            json!([
                revision,
                kind,
                source,
                source_tag,
                destination,
                destination_tag,
                protocol,
                start_port,
                end_port,
                underlay_ip,
                overlay_subnet,
                overlay_hwaddr
            ])
        })
        .collect();
    sqlx::query(
        "INSERT INTO netman_changes (revision, kind, source, source_tag, destination,
                                     destination_tag, protocol, start_port, end_port,
                                     underlay_ip, overlay_subnet, overlay_hwaddr)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5,
                value ->> 6, value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11
         FROM json_each(?)",
    )
    .bind(json!(rows).to_string())
    .execute(tx)
    .await
    .doing("logging changes")?;
    Ok(())
}

pub(super) async fn logged(
    tx: &mut SqliteConnection,
    since: Revision,
) -> Result<Vec<(Revision, Change)>, StoreError> {
    let rows: Vec<ChangeRow> =
        // In the order of the index: by id alone, SQLite would read the whole log to be spared sorting.
        sqlx::query_as("SELECT * FROM netman_changes WHERE revision > ? ORDER BY revision, id")
            .bind(row::stored(since))
            .fetch_all(tx)
            .await
            .doing("reading the log of changes")?;
    rows.into_iter().map(<(Revision, Change)>::try_from).collect()
}
