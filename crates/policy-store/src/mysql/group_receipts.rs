//! Table `netman_group_receipts` (design §2.3).

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::MySqlConnection;

use super::{NOW_MILLIS, rows};
use crate::{StoreError, error::Doing, row::GroupReceiptRow};

/// Rows are written in the order of their keys, so that servers that write at the same time wait for each
/// other and not in a circle. A word from the future was stored before the clock was set back, so any
/// other is later. Columns are set from left to right: `said_at` is the old one until it is set.
pub(super) async fn put(
    connection: &mut MySqlConnection,
    receipts: &[GroupReceiptRow],
) -> Result<(), StoreError> {
    let new = rows::table(
        "new",
        &[
            rows::text("cell", 0),
            rows::text("life", 1),
            rows::number("revision", 2),
            rows::text("spaces", 3),
            rows::text("error", 4),
            rows::number("said_ago", 5),
        ],
    );
    let set = ["life", "revision", "spaces", "error", "said_at"].map(|column| {
        format!(
            "{column} = IF(netman_group_receipts.said_at <= VALUES(said_at)
                           OR netman_group_receipts.said_at > {NOW_MILLIS},
                           VALUES({column}), netman_group_receipts.{column})"
        )
    });
    let insert = format!(
        "INSERT INTO netman_group_receipts (cell, life, revision, spaces, error, said_at)
         SELECT cell, life, revision, spaces, error, {NOW_MILLIS} - said_ago
         FROM (SELECT * FROM {new}) AS said ORDER BY cell
         ON DUPLICATE KEY UPDATE {}",
        set.join(", ")
    );
    for batch in rows::batches(receipts.iter().map(columns)) {
        sqlx::query(super::fixed(insert.clone()))
            .bind(batch)
            .execute(&mut *connection)
            .await
            .doing("writing what cells said of groups")?;
    }
    Ok(())
}

fn columns(row: &GroupReceiptRow) -> Value {
    let GroupReceiptRow { cell, life, revision, spaces, error, said_ago } = row;
    json!([cell, life, revision, spaces, error, said_ago])
}

pub(super) async fn list(
    connection: &mut MySqlConnection,
) -> Result<Vec<GroupReceiptRow>, StoreError> {
    sqlx::query_as(super::fixed(format!(
        "SELECT cell, life, revision, spaces, error, {NOW_MILLIS} - said_at AS said_ago
         FROM netman_group_receipts ORDER BY cell"
    )))
    .fetch_all(connection)
    .await
    .doing("reading what cells said of groups")
}

pub(super) async fn forget(
    connection: &mut MySqlConnection,
    silent_for: Duration,
) -> Result<u64, StoreError> {
    let forgotten = sqlx::query(super::fixed(format!(
        "DELETE g FROM netman_group_receipts g LEFT JOIN netman_receipts r ON r.cell = g.cell
         WHERE g.said_at <= {NOW_MILLIS} - ? AND r.cell IS NULL"
    )))
    .bind(i64::try_from(silent_for.as_millis()).unwrap_or(i64::MAX))
    .execute(connection)
    .await
    .doing("forgetting what cells that are gone said of groups")?;
    Ok(forgotten.rows_affected())
}
