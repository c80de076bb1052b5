//! Table `netman_receipts` (design §2.3).

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::SqliteConnection;

use crate::{
    StoreError,
    error::Doing,
    row::{HeardRow, ReceiptRow},
};

/// A word from the future was stored before the clock was set back, so any other is later.
pub(super) async fn put(
    connection: &mut SqliteConnection,
    server: &str,
    receipts: &[ReceiptRow],
) -> Result<(), StoreError> {
    let rows: Vec<Value> = receipts
        .iter()
        .map(|row| {
            let ReceiptRow { cell, life, revision, apps, backend, error, agent, said_ago } = row;
            json!([cell, life, revision, apps, backend, error, agent, said_ago])
        })
        .collect();
    sqlx::query(
        "WITH now (millis) AS (SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER))
         INSERT INTO netman_receipts (cell, server, life, revision, apps, backend, error, agent,
                                      said_at, heard_at)
         SELECT value ->> 0, ?2, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5,
                value ->> 6, millis - (value ->> 7), millis
         FROM json_each(?1) CROSS JOIN now WHERE true
         ON CONFLICT (cell) DO UPDATE SET
             server = excluded.server, life = excluded.life, revision = excluded.revision,
             apps = excluded.apps, backend = excluded.backend, error = excluded.error,
             agent = excluded.agent, said_at = excluded.said_at, heard_at = excluded.heard_at
         WHERE said_at <= excluded.said_at OR said_at > excluded.heard_at
             OR server = excluded.server AND excluded.server <> ''",
    )
    .bind(json!(rows).to_string())
    .bind(server)
    .execute(connection)
    .await
    .doing("writing what cells said")?;
    Ok(())
}

pub(super) async fn list(connection: &mut SqliteConnection) -> Result<Vec<HeardRow>, StoreError> {
    sqlx::query_as(
        "WITH now (millis) AS (SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER))
         SELECT cell, server, life, revision, apps, backend, error, agent,
                millis - said_at AS said_ago,
                millis - max(receipt.heard_at, coalesce(netman_servers.heard_at, 0)) AS silent_for
         FROM netman_receipts AS receipt CROSS JOIN now LEFT JOIN netman_servers USING (server)
         ORDER BY cell",
    )
    .fetch_all(connection)
    .await
    .doing("reading what cells said")
}

pub(super) async fn forget(
    connection: &mut SqliteConnection,
    silent_for: Duration,
) -> Result<u64, StoreError> {
    let forgotten = sqlx::query(
        "DELETE FROM netman_receipts
         WHERE heard_at + ?1 < CAST(unixepoch('subsec') * 1000 AS INTEGER)
           AND NOT EXISTS (SELECT 1 FROM netman_servers AS alive
                           WHERE alive.server = netman_receipts.server
                             AND alive.heard_at + ?1 >= CAST(unixepoch('subsec') * 1000 AS INTEGER))",
    )
    .bind(i64::try_from(silent_for.as_millis()).unwrap_or(i64::MAX))
    .execute(connection)
    .await
    .doing("forgetting what cells said to servers that are gone")?;
    Ok(forgotten.rows_affected())
}
