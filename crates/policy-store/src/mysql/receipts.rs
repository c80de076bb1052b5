//! Table `netman_receipts` (design §2.3).

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::MySqlConnection;

use super::{NOW_MILLIS, rows};
use crate::{
    StoreError,
    error::Doing,
    row::{HeardRow, ReceiptRow},
};

/// Rows are written in the order of their keys, so that servers that write at the same time wait for each
/// other and not in a circle. A word from the future was stored before the clock was set back, so any
/// other is later. One server's words come in their order, and when each was said is only known as well
/// as it came: the next is later, too, however long the one before was under way. Columns are set from
/// left to right: `said_at` is the old one until it is set, and once `server` is the new one it is the
/// server's own row.
pub(super) async fn put(
    connection: &mut MySqlConnection,
    server: &str,
    receipts: &[ReceiptRow],
) -> Result<(), StoreError> {
    let new = rows::table(
        "new",
        &[
            rows::text("cell", 0),
            rows::text("life", 1),
            rows::number("revision", 2),
            rows::text("apps", 3),
            rows::text("backend", 4),
            rows::text("error", 5),
            rows::text("agent", 6),
            rows::number("said_ago", 7),
        ],
    );
    let set: Vec<String> =
        ["server", "life", "revision", "apps", "backend", "error", "agent", "heard_at", "said_at"]
            .into_iter()
            .map(|column| {
                format!(
                    "{column} = IF(netman_receipts.said_at <= VALUES(said_at)
                                   OR netman_receipts.said_at > {NOW_MILLIS}
                                   OR netman_receipts.server = VALUES(server)
                                       AND VALUES(server) <> '',
                                   VALUES({column}), netman_receipts.{column})"
                )
            })
            .collect();
    let insert = format!(
        "INSERT INTO netman_receipts (cell, server, life, revision, apps, backend, error, agent,
                                      said_at, heard_at)
         SELECT cell, ?, life, revision, apps, backend, error, agent, {NOW_MILLIS} - said_ago,
                {NOW_MILLIS}
         FROM (SELECT * FROM {new}) AS said ORDER BY cell
         ON DUPLICATE KEY UPDATE {}",
        set.join(", ")
    );
    for batch in rows::batches(receipts.iter().map(columns)) {
        sqlx::query(super::fixed(insert.clone()))
            .bind(server)
            .bind(batch)
            .execute(&mut *connection)
            .await
            .doing("writing what cells said")?;
    }
    Ok(())
}

fn columns(row: &ReceiptRow) -> Value {
    let ReceiptRow { cell, life, revision, apps, backend, error, agent, said_ago } = row;
    json!([cell, life, revision, apps, backend, error, agent, said_ago])
}

pub(super) async fn list(connection: &mut MySqlConnection) -> Result<Vec<HeardRow>, StoreError> {
    sqlx::query_as(super::fixed(format!(
        "SELECT r.cell, r.server, r.life, r.revision, r.apps, r.backend, r.error, r.agent,
                {NOW_MILLIS} - r.said_at AS said_ago,
                {NOW_MILLIS} - GREATEST(r.heard_at, COALESCE(s.heard_at, 0)) AS silent_for
         FROM netman_receipts r LEFT JOIN netman_servers s ON s.server = r.server
         ORDER BY r.cell"
    )))
    .fetch_all(connection)
    .await
    .doing("reading what cells said")
}

pub(super) async fn forget(
    connection: &mut MySqlConnection,
    silent_for: Duration,
) -> Result<u64, StoreError> {
    let silent_for = i64::try_from(silent_for.as_millis()).unwrap_or(i64::MAX);
    let forgotten = sqlx::query(super::fixed(format!(
        "DELETE r FROM netman_receipts r LEFT JOIN netman_servers s ON s.server = r.server
         WHERE GREATEST(r.heard_at, COALESCE(s.heard_at, 0)) < {NOW_MILLIS} - ?"
    )))
    .bind(silent_for)
    .execute(connection)
    .await
    .doing("forgetting what cells said to servers that are gone")?;
    Ok(forgotten.rows_affected())
}
