//! Tables `netman_life`, `netman_revision` and `netman_changes` (design §2.1).

use policy::{Life, Revision, Version};
use serde_json::{Value, json};
use sqlx::MySqlConnection;
use uuid::Uuid;

use super::{EPOCH, rows};
use crate::{
    Change, StoreError,
    error::Doing,
    row::{self, ChangeRow},
    session::Position,
};

/// Names the life of a new database.
pub(super) async fn begin_life(tx: &mut MySqlConnection) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO netman_life (id, life) VALUES (1, ?) ON DUPLICATE KEY UPDATE id = id")
        .bind(Uuid::new_v4().to_string())
        .execute(tx)
        .await
        .doing("beginning the database's life")?;
    Ok(())
}

/// Life, revision, how far the log was compacted, whether somebody else wrote, and the last update.
type Read = (String, i64, i64, bool, i64);

pub(super) async fn position(tx: &mut MySqlConnection) -> Result<Position, StoreError> {
    let (life, revision, compacted, foreign, last_updated): Read =
        sqlx::query_as(super::fixed(format!(
            "SELECT life, revision, compacted, NOT (explained <=> last_updated),
                TIMESTAMPDIFF(MICROSECOND, {EPOCH}, last_updated)
         FROM netman_life JOIN netman_revision JOIN policies_info"
        )))
        .fetch_one(tx)
        .await
        .doing("reading the revision")?;
    let version = Version {
        life: Life::new(&life).map_err(|_| StoreError::unreadable("life", life))?,
        revision: row::revision(revision)?,
    };
    Ok(Position { version, compacted: row::revision(compacted)?, foreign, last_updated })
}

pub(super) async fn advance(tx: &mut MySqlConnection, count: u64) -> Result<(), StoreError> {
    sqlx::query("UPDATE netman_revision SET revision = revision + ?")
        .bind(row::stored(Revision(count)))
        .execute(tx)
        .await
        .doing("taking a revision")?;
    Ok(())
}

pub(super) async fn compact(tx: &mut MySqlConnection, to: Revision) -> Result<(), StoreError> {
    sqlx::query("UPDATE netman_revision SET compacted = GREATEST(compacted, ?)")
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

/// Dates are reckoned in UTC, the zone of our sessions, where none is ambiguous.
pub(super) async fn touch(tx: &mut MySqlConnection, micros: i64) -> Result<(), StoreError> {
    sqlx::query(super::fixed(format!(
        "UPDATE policies_info
         SET last_updated = GREATEST(last_updated + INTERVAL 1 MICROSECOND,
                                     {EPOCH} + INTERVAL ? MICROSECOND)"
    )))
    .bind(micros)
    .execute(&mut *tx)
    .await
    .doing("noting the time of the update")?;
    explain(tx).await
}

pub(super) async fn explain(tx: &mut MySqlConnection) -> Result<(), StoreError> {
    sqlx::query("UPDATE netman_revision SET explained = (SELECT last_updated FROM policies_info)")
        .execute(tx)
        .await
        .doing("noting whose update it was")?;
    Ok(())
}

pub(super) async fn renew_life(tx: &mut MySqlConnection) -> Result<(), StoreError> {
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
    tx: &mut MySqlConnection,
    changes: &[(Revision, Change)],
) -> Result<(), StoreError> {
    let new = rows::table(
        "new",
        &[
            rows::number("revision", 0),
            rows::text("kind", 1),
            rows::text("source", 2),
            rows::number("source_tag", 3),
            rows::text("destination", 4),
            rows::number("destination_tag", 5),
            rows::text("protocol", 6),
            rows::number("start_port", 7),
            rows::number("end_port", 8),
            rows::text("underlay_ip", 9),
            rows::text("overlay_subnet", 10),
            rows::text("overlay_hwaddr", 11),
        ],
    );
    let insert = format!(
        "INSERT INTO netman_changes (revision, kind, source, source_tag, destination,
                                     destination_tag, protocol, start_port, end_port,
                                     underlay_ip, overlay_subnet, overlay_hwaddr)
         SELECT revision, kind, source, source_tag, destination, destination_tag, protocol,
                start_port, end_port, underlay_ip, overlay_subnet, overlay_hwaddr
         FROM {new} ORDER BY n"
    );
    for batch in rows::batches(changes.iter().map(line)) {
        sqlx::query(super::fixed(insert.clone()))
            .bind(batch)
            .execute(&mut *tx)
            .await
            .doing("logging changes")?;
    }
    Ok(())
}

/// A line of the log, as an array of its columns.
fn line(change: &(Revision, Change)) -> Value {
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
}

pub(super) async fn logged(
    tx: &mut MySqlConnection,
    since: Revision,
) -> Result<Vec<(Revision, Change)>, StoreError> {
    let rows: Vec<ChangeRow> = sqlx::query_as(
        "SELECT revision, kind, source, source_tag, destination, destination_tag, protocol,
                start_port, end_port, underlay_ip, overlay_subnet, overlay_hwaddr
         FROM netman_changes WHERE revision > ? ORDER BY revision, id",
    )
    .bind(row::stored(since))
    .fetch_all(tx)
    .await
    .doing("reading the log of changes")?;
    rows.into_iter().map(<(Revision, Change)>::try_from).collect()
}
