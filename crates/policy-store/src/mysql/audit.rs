//! Table `netman_audit`.

use serde_json::json;
use sqlx::MySqlConnection;

use super::rows;
use crate::{AuditEntry, AuditQuery, StoreError, error::Doing, row::AuditRow};

pub(super) async fn append(
    tx: &mut MySqlConnection,
    entries: &[AuditEntry],
) -> Result<(), StoreError> {
    let lines = entries.iter().map(|entry| {
        let AuditRow { id: _, at, action, subject, address, request, revision, policies } =
            AuditRow::from(entry);
        json!([at, action, subject, address, request, revision, policies])
    });
    let new = rows::table(
        "new",
        &[
            rows::number("at", 0),
            rows::text("action", 1),
            rows::text("subject", 2),
            rows::text("address", 3),
            rows::text("request", 4),
            rows::number("revision", 5),
            rows::text("policies", 6),
        ],
    );
    let insert = format!(
        "INSERT INTO netman_audit (at, action, subject, address, request, revision, policies)
         SELECT new.at, new.action, new.subject, new.address, new.request, new.revision,
                new.policies
         FROM {new} ORDER BY new.n"
    );
    for batch in rows::batches(lines) {
        sqlx::query(super::fixed(insert.clone()))
            .bind(batch)
            .execute(&mut *tx)
            .await
            .doing("writing the audit trail")?;
    }
    Ok(())
}

pub(super) async fn list(
    tx: &mut MySqlConnection,
    query: &AuditQuery,
) -> Result<Vec<(u64, AuditEntry)>, StoreError> {
    let before = query.before.map_or(i64::MAX, |before| i64::try_from(before).unwrap_or(i64::MAX));
    let rows: Vec<AuditRow> = sqlx::query_as(
        "SELECT id, at, action, subject, address, request, revision, policies FROM netman_audit
         WHERE id < ? ORDER BY id DESC LIMIT ?",
    )
    .bind(before)
    .bind(query.limit)
    .fetch_all(tx)
    .await
    .doing("reading the audit trail")?;
    rows.into_iter().map(<(u64, AuditEntry)>::try_from).collect()
}
