//! Tables `netman_quarantine` and `netman_servers` (design §2.4).

use std::time::Duration;

use policy::{Revision, Tag};
use sqlx::PgConnection;

use crate::{StoreError, error::Doing, row};

pub(super) async fn of(
    tx: &mut PgConnection,
    ids: &[&str],
) -> Result<Vec<(Tag, String)>, StoreError> {
    let rows: Vec<(i64, String)> = sqlx::query_as(
        // No join, which could begin with all tags that are nobody's.
        "SELECT tag, guid FROM netman_quarantine
         WHERE guid = ANY ($1::text[])
           AND (SELECT groups.guid IS NULL FROM groups WHERE groups.id = tag)",
    )
    .bind(ids)
    .fetch_all(tx)
    .await
    .doing("looking up quarantined tags")?;
    rows.into_iter().map(|(tag, guid)| Ok((row::tag(tag)?, guid))).collect()
}

pub(super) async fn add(
    tx: &mut PgConnection,
    released: &[(Tag, String)],
    at: Revision,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO netman_quarantine (tag, guid, revision)
         SELECT tag, guid, $3 FROM unnest($1::bigint[], $2::text[]) AS released (tag, guid)
         ON CONFLICT (tag) DO UPDATE SET guid = excluded.guid, revision = excluded.revision",
    )
    .bind(released.iter().map(|(tag, _)| i64::from(tag.id())).collect::<Vec<_>>())
    .bind(released.iter().map(|(_, guid)| guid.as_str()).collect::<Vec<_>>())
    .bind(row::stored(at))
    .execute(tx)
    .await
    .doing("quarantining tags")?;
    Ok(())
}

pub(super) async fn end(
    tx: &mut PgConnection,
    confirmed: Option<Revision>,
) -> Result<usize, StoreError> {
    let ended = sqlx::query(
        "DELETE FROM netman_quarantine WHERE $1::bigint IS NULL OR revision < $1::bigint",
    )
    .bind(confirmed.map(row::stored))
    .execute(tx)
    .await
    .doing("ending the quarantine of tags")?;
    Ok(usize::try_from(ended.rows_affected()).unwrap_or(usize::MAX))
}

pub(super) async fn count(tx: &mut PgConnection) -> Result<usize, StoreError> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM netman_quarantine")
        .fetch_one(tx)
        .await
        .doing("counting quarantined tags")?;
    Ok(usize::try_from(count).unwrap_or_default())
}

pub(super) async fn report(
    tx: &mut PgConnection,
    server: &str,
    confirmed: Option<Revision>,
    lifetime: Duration,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO netman_servers (server, confirmed, heard_at)
         VALUES ($1, $2, clock_timestamp())
         ON CONFLICT (server)
         DO UPDATE SET confirmed = excluded.confirmed, heard_at = excluded.heard_at",
    )
    .bind(server)
    .bind(confirmed.map(row::stored))
    .execute(&mut *tx)
    .await
    .doing("noting what a server's cells enforce")?;
    sqlx::query(
        "DELETE FROM netman_servers
         WHERE heard_at + $1 * interval '1 millisecond' < clock_timestamp()",
    )
    .bind(i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX))
    .execute(tx)
    .await
    .doing("forgetting servers that are gone")?;
    Ok(())
}

pub(super) async fn confirmed(tx: &mut PgConnection) -> Result<Vec<Revision>, StoreError> {
    let rows: Vec<i64> =
        sqlx::query_scalar("SELECT confirmed FROM netman_servers WHERE confirmed IS NOT NULL")
            .fetch_all(tx)
            .await
            .doing("asking what cells enforce")?;
    rows.into_iter().map(row::revision).collect()
}
