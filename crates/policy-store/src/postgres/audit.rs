//! Table `netman_audit`.

use sqlx::PgConnection;

use crate::{AuditEntry, AuditQuery, StoreError, error::Doing, row::AuditRow};

pub(super) async fn append(
    tx: &mut PgConnection,
    entries: &[AuditEntry],
) -> Result<(), StoreError> {
    let rows: Vec<AuditRow> = entries.iter().map(AuditRow::from).collect();
    let texts = |text: fn(&AuditRow) -> &String| -> Vec<String> {
        rows.iter().map(|row| text(row).clone()).collect()
    };
    sqlx::query(
        "INSERT INTO netman_audit (at, action, subject, address, request, revision, policies)
         SELECT at, action, subject, address, request, revision, policies
         FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[],
                     $7::text[]) WITH ORDINALITY
              AS new (at, action, subject, address, request, revision, policies, place)
         ORDER BY place",
    )
    .bind(rows.iter().map(|row| row.at).collect::<Vec<_>>())
    .bind(texts(|row| &row.action))
    .bind(texts(|row| &row.subject))
    .bind(rows.iter().map(|row| row.address.clone()).collect::<Vec<_>>())
    .bind(texts(|row| &row.request))
    .bind(rows.iter().map(|row| row.revision).collect::<Vec<_>>())
    .bind(texts(|row| &row.policies))
    .execute(tx)
    .await
    .doing("writing the audit trail")?;
    Ok(())
}

pub(super) async fn list(
    tx: &mut PgConnection,
    query: &AuditQuery,
) -> Result<Vec<(u64, AuditEntry)>, StoreError> {
    let before = query.before.map(|before| i64::try_from(before).unwrap_or(i64::MAX));
    let rows: Vec<AuditRow> = sqlx::query_as(
        "SELECT id, at, action, subject, address, request, revision, policies FROM netman_audit
         WHERE $1::bigint IS NULL OR id < $1::bigint ORDER BY id DESC LIMIT $2",
    )
    .bind(before)
    .bind(i64::from(query.limit))
    .fetch_all(tx)
    .await
    .doing("reading the audit trail")?;
    rows.into_iter().map(<(u64, AuditEntry)>::try_from).collect()
}
