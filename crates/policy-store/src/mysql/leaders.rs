//! Table `netman_leaders`.

use std::time::Duration;

use sqlx::MySqlConnection;

use super::NOW_MILLIS;
use crate::{StoreError, error::Doing};

/// Those who ask queue at the lock that all writers take, so nobody comes between question and answer.
pub(super) async fn lead(
    tx: &mut MySqlConnection,
    group: &str,
    owner: &str,
    lifetime: Duration,
) -> Result<bool, StoreError> {
    let led: bool = sqlx::query_scalar(super::fixed(format!(
        "SELECT EXISTS (SELECT 1 FROM netman_leaders
                        WHERE name = ? AND owner <> ? AND until >= {NOW_MILLIS})"
    )))
    .bind(group)
    .bind(owner)
    .fetch_one(&mut *tx)
    .await
    .doing("asking who leads")?;
    if led {
        return Ok(false);
    }
    sqlx::query(super::fixed(format!(
        "INSERT INTO netman_leaders (name, owner, until) VALUES (?, ?, {NOW_MILLIS} + ?)
         ON DUPLICATE KEY UPDATE owner = VALUES(owner), until = VALUES(until)"
    )))
    .bind(group)
    .bind(owner)
    .bind(i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX))
    .execute(tx)
    .await
    .doing("taking the lead")?;
    Ok(true)
}

pub(super) async fn resign(
    tx: &mut MySqlConnection,
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
