//! Table `netman_leaders`.

use std::time::Duration;

use sqlx::SqliteConnection;

use crate::{StoreError, error::Doing};

pub(super) async fn lead(
    tx: &mut SqliteConnection,
    group: &str,
    owner: &str,
    lifetime: Duration,
) -> Result<bool, StoreError> {
    let taken = sqlx::query(
        "INSERT INTO netman_leaders (name, owner, until)
         VALUES (?1, ?2, CAST(unixepoch('subsec') * 1000 AS INTEGER) + ?3)
         ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until
         WHERE owner = excluded.owner
            OR until < CAST(unixepoch('subsec') * 1000 AS INTEGER)",
    )
    .bind(group)
    .bind(owner)
    .bind(i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX))
    .execute(tx)
    .await
    .doing("asking for the lead")?;
    Ok(taken.rows_affected() > 0)
}

pub(super) async fn resign(
    tx: &mut SqliteConnection,
    group: &str,
    owner: &str,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM netman_leaders WHERE name = ? AND owner = ?")
        .bind(group)
        .bind(owner)
        .execute(tx)
        .await
        .doing("giving the lead back")?;
    Ok(())
}
