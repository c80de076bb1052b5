//! Table `netman_group_receipts` (design §2.3).

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::SqliteConnection;

use crate::{StoreError, error::Doing, row::GroupReceiptRow};

/// A word from the future was stored before the clock was set back, so any other is later.
pub(super) async fn put(
    connection: &mut SqliteConnection,
    receipts: &[GroupReceiptRow],
) -> Result<(), StoreError> {
    let rows: Vec<Value> = receipts
        .iter()
        .map(|row| {
            let GroupReceiptRow { cell, life, revision, spaces, error, said_ago } = row;
            json!([cell, life, revision, spaces, error, said_ago])
        })
        .collect();
    sqlx::query(
        "WITH now (millis) AS (SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER))
         INSERT INTO netman_group_receipts (cell, life, revision, spaces, error, said_at)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4,
                millis - (value ->> 5)
         FROM json_each(?1) CROSS JOIN now WHERE true
         ON CONFLICT (cell) DO UPDATE SET
             life = excluded.life, revision = excluded.revision, spaces = excluded.spaces,
             error = excluded.error, said_at = excluded.said_at
         WHERE said_at <= excluded.said_at
            OR said_at > CAST(unixepoch('subsec') * 1000 AS INTEGER)",
    )
    .bind(json!(rows).to_string())
    .execute(connection)
    .await
    .doing("writing what cells said of groups")?;
    Ok(())
}

pub(super) async fn list(
    connection: &mut SqliteConnection,
) -> Result<Vec<GroupReceiptRow>, StoreError> {
    sqlx::query_as(
        "SELECT cell, life, revision, spaces, error,
                CAST(unixepoch('subsec') * 1000 AS INTEGER) - said_at AS said_ago
         FROM netman_group_receipts ORDER BY cell",
    )
    .fetch_all(connection)
    .await
    .doing("reading what cells said of groups")
}

pub(super) async fn forget(
    connection: &mut SqliteConnection,
    silent_for: Duration,
) -> Result<u64, StoreError> {
    let forgotten = sqlx::query(
        "DELETE FROM netman_group_receipts
         WHERE said_at + ? <= CAST(unixepoch('subsec') * 1000 AS INTEGER)
           AND cell NOT IN (SELECT cell FROM netman_receipts)",
    )
    .bind(i64::try_from(silent_for.as_millis()).unwrap_or(i64::MAX))
    .execute(connection)
    .await
    .doing("forgetting what cells that are gone said of groups")?;
    Ok(forgotten.rows_affected())
}
