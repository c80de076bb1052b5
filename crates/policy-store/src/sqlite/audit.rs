//! Table `netman_audit`.

use serde_json::{Value, json};
use sqlx::SqliteConnection;

use crate::{AuditEntry, AuditQuery, StoreError, error::Doing, row::AuditRow};

pub(super) async fn append(
    tx: &mut SqliteConnection,
    entries: &[AuditEntry],
) -> Result<(), StoreError> {
    let rows: Vec<Value> = entries
        .iter()
        .map(|entry| {
            let AuditRow { id: _, at, action, subject, address, request, revision, policies } =
                AuditRow::from(entry);
            json!([at, action, subject, address, request, revision, policies])
        })
        .collect();
    sqlx::query(
        "INSERT INTO netman_audit (at, action, subject, address, request, revision, policies)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5,
                value ->> 6
         FROM json_each(?) ORDER BY key",
    )
    .bind(json!(rows).to_string())
    .execute(tx)
    .await
    .doing("writing the audit trail")?;
    Ok(())
}

pub(super) async fn list(
    tx: &mut SqliteConnection,
    query: &AuditQuery,
) -> Result<Vec<(u64, AuditEntry)>, StoreError> {
    let before = query.before.map(|before| i64::try_from(before).unwrap_or(i64::MAX));
    let rows: Vec<AuditRow> = sqlx::query_as(
        "SELECT id, at, action, subject, address, request, revision, policies FROM netman_audit
         WHERE id < coalesce(?, id + 1) ORDER BY id DESC LIMIT ?",
    )
    .bind(before)
    .bind(query.limit)
    .fetch_all(tx)
    .await
    .doing("reading the audit trail")?;
    rows.into_iter().map(<(u64, AuditEntry)>::try_from).collect()
}
