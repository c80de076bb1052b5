//! Tables `netman_quarantine` and `netman_servers` (design §2.4).

use std::time::Duration;

use policy::{Revision, Tag};
use serde_json::json;
use sqlx::MySqlConnection;

use super::{NOW_MILLIS, names, rows};
use crate::{StoreError, error::Doing, row};

pub(super) async fn of(
    tx: &mut MySqlConnection,
    ids: &[&str],
) -> Result<Vec<(Tag, String)>, StoreError> {
    let asked = names::storable(ids);
    let mut found = Vec::new();
    let table = rows::table(
        "asked",
        &[format!(
            "guid VARCHAR({}) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$[0]'",
            names::LONGEST
        )],
    );
    let select = format!(
        "SELECT DISTINCT q.tag, q.guid FROM {table}
         STRAIGHT_JOIN netman_quarantine q ON q.guid = asked.guid
         STRAIGHT_JOIN `groups` g ON g.id = q.tag AND g.guid IS NULL"
    );
    for batch in rows::batches(asked.iter().map(|id| json!([id]))) {
        let rows: Vec<(i64, String)> = sqlx::query_as(super::fixed(select.clone()))
            .bind(batch)
            .fetch_all(&mut *tx)
            .await
            .doing("looking up quarantined tags")?;
        found.extend(rows);
    }
    found.retain(|(_, guid)| asked.contains(guid.as_str()));
    found.into_iter().map(|(tag, guid)| Ok((row::tag(tag)?, guid))).collect()
}

pub(super) async fn add(
    tx: &mut MySqlConnection,
    released: &[(Tag, String)],
    at: Revision,
) -> Result<(), StoreError> {
    let table = rows::table("released", &[rows::number("tag", 0), rows::text("guid", 1)]);
    let insert = format!(
        "INSERT INTO netman_quarantine (tag, guid, revision)
         SELECT released.tag, released.guid, ? FROM {table}
         ON DUPLICATE KEY UPDATE guid = VALUES(guid), revision = VALUES(revision)"
    );
    for batch in rows::batches(released.iter().map(|(tag, guid)| json!([tag.id(), guid]))) {
        sqlx::query(super::fixed(insert.clone()))
            .bind(row::stored(at))
            .bind(batch)
            .execute(&mut *tx)
            .await
            .doing("quarantining tags")?;
    }
    Ok(())
}

pub(super) async fn end(tx: &mut MySqlConnection, lifetime: Duration) -> Result<usize, StoreError> {
    sqlx::query(super::fixed(format!(
        "UPDATE netman_servers SET confirmed = NULL
         WHERE confirmed IS NOT NULL AND heard_at + ? < {NOW_MILLIS}"
    )))
    .bind(millis(lifetime))
    .execute(&mut *tx)
    .await
    .doing("taking back what servers said that are gone")?;
    let ended = sqlx::query(
        "DELETE FROM netman_quarantine
         WHERE revision < COALESCE((SELECT MIN(confirmed) FROM netman_servers), ?)",
    )
    .bind(i64::MAX)
    .execute(tx)
    .await
    .doing("ending the quarantine of tags")?;
    Ok(usize::try_from(ended.rows_affected()).unwrap_or(usize::MAX))
}

pub(super) async fn count(tx: &mut MySqlConnection) -> Result<usize, StoreError> {
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM netman_quarantine")
        .fetch_one(tx)
        .await
        .doing("counting quarantined tags")?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// The revision is asked for by itself: a statement that writes would wait for whoever is about to take one.
pub(super) async fn report(
    tx: &mut MySqlConnection,
    server: &str,
    confirmed: Option<Revision>,
    lifetime: Duration,
) -> Result<bool, StoreError> {
    let doing = "noting what a server's cells enforce";
    let last: i64 = sqlx::query_scalar("SELECT revision FROM netman_revision")
        .fetch_one(&mut *tx)
        .await
        .doing(doing)?;
    sqlx::query(super::fixed(format!(
        "INSERT INTO netman_servers (server, confirmed, heard_at) VALUES (?, ?, {NOW_MILLIS})
         ON DUPLICATE KEY UPDATE confirmed = VALUES(confirmed), heard_at = VALUES(heard_at)"
    )))
    .bind(server)
    .bind(confirmed.map(|confirmed| row::stored(confirmed).min(last)))
    .execute(&mut *tx)
    .await
    .doing(doing)?;
    sqlx::query_scalar(super::fixed(format!(
        "SELECT EXISTS (SELECT 1 FROM netman_servers
                        WHERE confirmed IS NOT NULL AND heard_at + ? < {NOW_MILLIS})
             OR EXISTS (SELECT 1 FROM netman_quarantine
                        WHERE revision < COALESCE((SELECT MIN(confirmed) FROM netman_servers), ?))"
    )))
    .bind(millis(lifetime))
    .bind(i64::MAX)
    .fetch_one(tx)
    .await
    .doing("asking whether cells confirmed what is quarantined")
}

pub(super) async fn leave(tx: &mut MySqlConnection, server: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE netman_servers SET server = CONCAT('left:', server) WHERE server = ?")
        .bind(server)
        .execute(tx)
        .await
        .doing("noting that a server ends")?;
    Ok(())
}

pub(super) async fn is_lost(
    tx: &mut MySqlConnection,
    silent_for: Duration,
) -> Result<bool, StoreError> {
    sqlx::query_scalar(super::fixed(format!(
        "SELECT EXISTS (SELECT 1 FROM netman_servers
                        WHERE server NOT LIKE 'left:%' AND heard_at + ? < {NOW_MILLIS})"
    )))
    .bind(millis(silent_for))
    .fetch_one(tx)
    .await
    .doing("looking for lost servers")
}

pub(super) async fn forget(
    tx: &mut MySqlConnection,
    silent_for: Duration,
) -> Result<(), StoreError> {
    sqlx::query(super::fixed(format!(
        "DELETE FROM netman_servers WHERE heard_at + ? < {NOW_MILLIS}"
    )))
    .bind(millis(silent_for))
    .execute(tx)
    .await
    .doing("forgetting servers that are gone")?;
    Ok(())
}

pub(super) async fn confirmed(tx: &mut MySqlConnection) -> Result<Vec<Revision>, StoreError> {
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
