//! Table `netman_group_receipts` (design §2.3).

use std::time::Duration;

use sqlx::PgConnection;

use crate::{StoreError, error::Doing, row::GroupReceiptRow};

/// Rows are written in the order of their keys, so that servers that write at the same time wait for each
/// other and not in a circle. A word from the future was stored before the clock was set back, so any
/// other is later.
pub(super) async fn put(
    connection: &mut PgConnection,
    receipts: &[GroupReceiptRow],
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO netman_group_receipts AS known (cell, life, revision, spaces, error, said_at)
         SELECT cell, life, revision, spaces, error,
                clock_timestamp() - said_ago * interval '1 millisecond'
         FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::bigint[])
              AS new (cell, life, revision, spaces, error, said_ago)
         ORDER BY cell
         ON CONFLICT (cell) DO UPDATE SET
             life = excluded.life, revision = excluded.revision, spaces = excluded.spaces,
             error = excluded.error, said_at = excluded.said_at
         WHERE known.said_at <= excluded.said_at OR known.said_at > clock_timestamp()",
    )
    .bind(receipts.iter().map(|row| row.cell.clone()).collect::<Vec<_>>())
    .bind(receipts.iter().map(|row| row.life.clone()).collect::<Vec<_>>())
    .bind(receipts.iter().map(|row| row.revision).collect::<Vec<_>>())
    .bind(receipts.iter().map(|row| row.spaces.clone()).collect::<Vec<_>>())
    .bind(receipts.iter().map(|row| row.error.clone()).collect::<Vec<_>>())
    .bind(receipts.iter().map(|row| row.said_ago).collect::<Vec<_>>())
    .execute(connection)
    .await
    .doing("writing what cells said of groups")?;
    Ok(())
}

pub(super) async fn list(
    connection: &mut PgConnection,
) -> Result<Vec<GroupReceiptRow>, StoreError> {
    sqlx::query_as(
        "SELECT cell, life, revision, spaces, error,
                (extract(epoch FROM clock_timestamp() - said_at) * 1000)::bigint AS said_ago
         FROM netman_group_receipts ORDER BY cell",
    )
    .fetch_all(connection)
    .await
    .doing("reading what cells said of groups")
}

pub(super) async fn forget(
    connection: &mut PgConnection,
    silent_for: Duration,
) -> Result<u64, StoreError> {
    let forgotten = sqlx::query(
        "DELETE FROM netman_group_receipts AS receipt
         WHERE said_at + $1 * interval '1 millisecond' <= clock_timestamp()
           AND NOT EXISTS (SELECT 1 FROM netman_receipts AS other
                           WHERE other.cell = receipt.cell)",
    )
    .bind(i64::try_from(silent_for.as_millis()).unwrap_or(i64::MAX))
    .execute(connection)
    .await
    .doing("forgetting what cells that are gone said of groups")?;
    Ok(forgotten.rows_affected())
}
