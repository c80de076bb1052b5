//! Table `netman_audit`.

use sqlx::{MySqlConnection, QueryBuilder};

use crate::{AuditEntry, AuditQuery, StoreError, error::Doing, row::AuditRow};

pub(super) async fn append(
    tx: &mut MySqlConnection,
    entries: &[AuditEntry],
) -> Result<(), StoreError> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut insert = QueryBuilder::new(
        "INSERT INTO netman_audit (at, action, subject, address, request, revision, policies) ",
    );
    insert.push_values(entries, |mut row, entry| {
        let AuditRow { id: _, at, action, subject, address, request, revision, policies } =
            AuditRow::from(entry);
        row.push_bind(at).push_bind(action).push_bind(subject).push_bind(address);
        row.push_bind(request).push_bind(revision).push_bind(policies);
    });
    // One text for each number of entries: not worth a place among the prepared statements.
    insert.build().persistent(false).execute(tx).await.doing("writing the audit trail")?;
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
