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

pub(super) async fn end(tx: &mut PgConnection, lifetime: Duration) -> Result<usize, StoreError> {
    sqlx::query(
        "UPDATE netman_servers SET confirmed = NULL
         WHERE confirmed IS NOT NULL
           AND heard_at + $1 * interval '1 millisecond' < clock_timestamp()",
    )
    .bind(millis(lifetime))
    .execute(&mut *tx)
    .await
    .doing("taking back what servers said that are gone")?;
    let ended = sqlx::query(
        "DELETE FROM netman_quarantine
         WHERE revision < coalesce((SELECT min(confirmed) FROM netman_servers), $1)",
    )
    .bind(i64::MAX)
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

/// One statement, which sees the servers as they were before it: this one counts as reported now.
pub(super) async fn report(
    tx: &mut PgConnection,
    server: &str,
    confirmed: Option<Revision>,
    lifetime: Duration,
) -> Result<bool, StoreError> {
    sqlx::query_scalar(
        "WITH heard AS (
             INSERT INTO netman_servers (server, confirmed, heard_at)
             SELECT $1, CASE WHEN $2::bigint IS NOT NULL THEN least($2, revision) END,
                    clock_timestamp()
             FROM netman_revision
             ON CONFLICT (server)
             DO UPDATE SET confirmed = excluded.confirmed, heard_at = excluded.heard_at
             RETURNING confirmed),
         others AS (SELECT confirmed, heard_at FROM netman_servers WHERE server <> $1),
         confirmed AS (SELECT confirmed FROM heard UNION ALL SELECT confirmed FROM others)
         SELECT EXISTS (SELECT 1 FROM others
                        WHERE confirmed IS NOT NULL
                          AND heard_at + $3 * interval '1 millisecond' < clock_timestamp())
             OR EXISTS (SELECT 1 FROM netman_quarantine
                        WHERE revision < coalesce((SELECT min(confirmed) FROM confirmed), $4))",
    )
    .bind(server)
    .bind(confirmed.map(row::stored))
    .bind(millis(lifetime))
    .bind(i64::MAX)
    .fetch_one(tx)
    .await
    .doing("noting what a server's cells enforce")
}

pub(super) async fn leave(tx: &mut PgConnection, server: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE netman_servers SET server = 'left:' || server WHERE server = $1")
        .bind(server)
        .execute(tx)
        .await
        .doing("noting that a server ends")?;
    Ok(())
}

pub(super) async fn is_lost(
    tx: &mut PgConnection,
    silent_for: Duration,
) -> Result<bool, StoreError> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM netman_servers
                        WHERE server NOT LIKE 'left:%' AND heard_at + $1 * interval '1 millisecond' < clock_timestamp())",
    )
    .bind(millis(silent_for))
    .fetch_one(tx)
    .await
    .doing("looking for lost servers")
}

pub(super) async fn forget(tx: &mut PgConnection, silent_for: Duration) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM netman_servers WHERE heard_at + $1 * interval '1 millisecond' < clock_timestamp()",
    )
    .bind(millis(silent_for))
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

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
