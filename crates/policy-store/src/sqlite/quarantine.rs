//! Tables `netman_quarantine` and `netman_servers` (design §2.4).

use std::time::Duration;

use policy::{Revision, Tag};
use serde_json::json;
use sqlx::SqliteConnection;

use crate::{StoreError, error::Doing, row};

pub(super) async fn of(
    tx: &mut SqliteConnection,
    ids: &[&str],
) -> Result<Vec<(Tag, String)>, StoreError> {
    let rows: Vec<(i64, String)> = sqlx::query_as(
        "SELECT tag, quarantined.guid FROM netman_quarantine AS quarantined
         JOIN groups ON groups.id = tag AND groups.guid IS NULL
         WHERE quarantined.guid IN (SELECT value FROM json_each(?))",
    )
    .bind(json!(ids).to_string())
    .fetch_all(tx)
    .await
    .doing("looking up quarantined tags")?;
    rows.into_iter().map(|(tag, guid)| Ok((row::tag(tag)?, guid))).collect()
}

pub(super) async fn add(
    tx: &mut SqliteConnection,
    released: &[(Tag, String)],
    at: Revision,
) -> Result<(), StoreError> {
    let rows: Vec<_> = released.iter().map(|(tag, guid)| (tag.id(), guid)).collect();
    sqlx::query(
        "INSERT INTO netman_quarantine (tag, guid, revision)
         SELECT value ->> 0, value ->> 1, ?2 FROM json_each(?1) WHERE true
         ON CONFLICT (tag) DO UPDATE SET guid = excluded.guid, revision = excluded.revision",
    )
    .bind(json!(rows).to_string())
    .bind(row::stored(at))
    .execute(tx)
    .await
    .doing("quarantining tags")?;
    Ok(())
}

pub(super) async fn end(
    tx: &mut SqliteConnection,
    lifetime: Duration,
) -> Result<usize, StoreError> {
    sqlx::query(
        "UPDATE netman_servers SET confirmed = NULL
         WHERE confirmed IS NOT NULL
           AND heard_at + ? < CAST(unixepoch('subsec') * 1000 AS INTEGER)",
    )
    .bind(millis(lifetime))
    .execute(&mut *tx)
    .await
    .doing("taking back what servers said that are gone")?;
    let ended = sqlx::query(
        "DELETE FROM netman_quarantine
         WHERE revision < coalesce((SELECT min(confirmed) FROM netman_servers), ?)",
    )
    .bind(i64::MAX)
    .execute(tx)
    .await
    .doing("ending the quarantine of tags")?;
    Ok(usize::try_from(ended.rows_affected()).unwrap_or(usize::MAX))
}

pub(super) async fn count(tx: &mut SqliteConnection) -> Result<usize, StoreError> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM netman_quarantine")
        .fetch_one(tx)
        .await
        .doing("counting quarantined tags")?;
    Ok(usize::try_from(count).unwrap_or_default())
}

pub(super) async fn report(
    tx: &mut SqliteConnection,
    server: &str,
    confirmed: Option<Revision>,
    lifetime: Duration,
) -> Result<bool, StoreError> {
    sqlx::query(
        "INSERT INTO netman_servers (server, confirmed, heard_at)
         SELECT ?1, min(?2, revision), CAST(unixepoch('subsec') * 1000 AS INTEGER) FROM netman_revision WHERE true
         ON CONFLICT (server)
         DO UPDATE SET confirmed = excluded.confirmed, heard_at = excluded.heard_at",
    )
    .bind(server)
    .bind(confirmed.map(row::stored))
    .execute(&mut *tx)
    .await
    .doing("noting what a server's cells enforce")?;
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM netman_servers
                        WHERE confirmed IS NOT NULL
                          AND heard_at + ?1 < CAST(unixepoch('subsec') * 1000 AS INTEGER))
             OR EXISTS (SELECT 1 FROM netman_quarantine
                        WHERE revision < coalesce((SELECT min(confirmed) FROM netman_servers), ?2))",
    )
    .bind(millis(lifetime))
    .bind(i64::MAX)
    .fetch_one(tx)
    .await
    .doing("asking whether cells confirmed what is quarantined")
}

pub(super) async fn leave(tx: &mut SqliteConnection, server: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE netman_servers SET server = 'left:' || server WHERE server = ?")
        .bind(server)
        .execute(tx)
        .await
        .doing("noting that a server ends")?;
    Ok(())
}

pub(super) async fn is_lost(
    tx: &mut SqliteConnection,
    silent_for: Duration,
) -> Result<bool, StoreError> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM netman_servers
                        WHERE server NOT LIKE 'left:%' AND heard_at + ? < CAST(unixepoch('subsec') * 1000 AS INTEGER))",
    )
    .bind(millis(silent_for))
    .fetch_one(tx)
    .await
    .doing("looking for lost servers")
}

pub(super) async fn forget(
    tx: &mut SqliteConnection,
    silent_for: Duration,
) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM netman_servers WHERE heard_at + ? < CAST(unixepoch('subsec') * 1000 AS INTEGER)",
    )
    .bind(millis(silent_for))
    .execute(tx)
    .await
    .doing("forgetting servers that are gone")?;
    Ok(())
}

pub(super) async fn confirmed(tx: &mut SqliteConnection) -> Result<Vec<Revision>, StoreError> {
    let rows: Vec<i64> =
        sqlx::query_scalar("SELECT confirmed FROM netman_servers WHERE confirmed IS NOT NULL")
            .fetch_all(tx)
            .await
            .doing("asking what cells enforce")?;
    rows.into_iter().map(row::revision).collect()
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
