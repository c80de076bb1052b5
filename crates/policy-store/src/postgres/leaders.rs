//! Table `netman_leaders`.

use std::time::Duration;

use sqlx::PgConnection;

use crate::{StoreError, error::Doing};

pub(super) async fn lead(
    tx: &mut PgConnection,
    group: &str,
    owner: &str,
    lifetime: Duration,
) -> Result<bool, StoreError> {
    let taken = sqlx::query(
        "INSERT INTO netman_leaders (name, owner, until)
         VALUES ($1, $2, clock_timestamp() + $3 * interval '1 millisecond')
         ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until
         WHERE netman_leaders.owner = excluded.owner OR netman_leaders.until < clock_timestamp()",
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
    tx: &mut PgConnection,
    group: &str,
    owner: &str,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM netman_leaders WHERE name = $1 AND owner = $2")
        .bind(group)
        .bind(owner)
        .execute(tx)
        .await
        .doing("giving the lead back")?;
    Ok(())
}
