//! Table `groups`: a row per possible tag, the tag being the row's id (spec/policy-server.md §4).

use policy::{Tag, TagLength};
use sqlx::PgConnection;

use crate::{AssignedTag, StoreError, error::Doing, row};

/// Makes the rows if there are none; later changes of the length change only how tags are printed.
pub(super) async fn seed(tx: &mut PgConnection, length: TagLength) -> Result<(), StoreError> {
    let made = sqlx::query(
        "INSERT INTO groups (id, guid) SELECT id, NULL FROM generate_series(1, $1) AS id
         WHERE NOT EXISTS (SELECT 1 FROM groups)",
    )
    .bind(i32::try_from(length.highest()).expect("three bytes fit"))
    .execute(&mut *tx)
    .await
    .doing("making the tags")?;
    if made.rows_affected() > 0 {
        // Nobody adds tags; but a sequence that lags behind would surprise whoever does.
        sqlx::query("SELECT setval(pg_get_serial_sequence('groups', 'id'), $1)")
            .bind(i64::from(length.highest()))
            .execute(tx)
            .await
            .doing("numbering the tags")?;
    }
    Ok(())
}

pub(super) async fn list(tx: &mut PgConnection) -> Result<Vec<AssignedTag>, StoreError> {
    let rows: Vec<(i64, String, String)> = sqlx::query_as(
        "SELECT id::bigint, guid, coalesce(type, '') FROM groups
         WHERE guid IS NOT NULL ORDER BY id",
    )
    .fetch_all(tx)
    .await
    .doing("listing tags")?;
    rows.into_iter().map(assigned).collect()
}

pub(super) async fn of(
    tx: &mut PgConnection,
    ids: &[&str],
) -> Result<Vec<AssignedTag>, StoreError> {
    let rows: Vec<(i64, String, String)> = sqlx::query_as(
        "SELECT id::bigint, guid, coalesce(type, '') FROM groups WHERE guid = ANY ($1::text[])",
    )
    .bind(ids)
    .fetch_all(tx)
    .await
    .doing("looking up tags")?;
    rows.into_iter().map(assigned).collect()
}

/// Locked, since an older server asked for a tag takes one without queueing with other writers.
///
/// `id` alone would be what is selected, a cast that no index knows: all free tags would be read and
/// sorted to find the lowest.
pub(super) async fn free(tx: &mut PgConnection, limit: usize) -> Result<Vec<Tag>, StoreError> {
    let rows: Vec<i64> = sqlx::query_scalar(
        "SELECT id::bigint FROM groups
         WHERE guid IS NULL
           AND NOT EXISTS (SELECT 1 FROM netman_quarantine WHERE tag = groups.id)
         ORDER BY groups.id LIMIT $1 FOR UPDATE OF groups",
    )
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(tx)
    .await
    .doing("looking for free tags")?;
    rows.into_iter().map(row::tag).collect()
}

/// No index knows `IS TRUE`, so the rows are found by their numbers; else all tags of nobody might be
/// gone through.
pub(super) async fn give(
    tx: &mut PgConnection,
    given: &[(Tag, &str)],
    kind: &str,
) -> Result<(), StoreError> {
    let tags: Vec<i64> = given.iter().map(|(tag, _)| tag.id().into()).collect();
    let ids: Vec<&str> = given.iter().map(|(_, id)| *id).collect();
    let taken = sqlx::query(
        "WITH ended AS (DELETE FROM netman_quarantine WHERE tag = ANY ($1::bigint[]))
         UPDATE groups SET guid = given.guid, type = $3
         FROM unnest($1::bigint[], $2::text[]) AS given (id, guid)
         WHERE groups.id = given.id AND (groups.guid IS NULL) IS TRUE",
    )
    .bind(tags)
    .bind(ids)
    .bind(kind)
    .execute(tx)
    .await
    .doing("giving out tags")?;
    if taken.rows_affected() == given.len() as u64 { Ok(()) } else { Err(StoreError::Overtaken) }
}

/// `IS TRUE` as in [`give`].
pub(super) async fn release(
    tx: &mut PgConnection,
    tags: &[Tag],
) -> Result<Vec<(Tag, String)>, StoreError> {
    let candidates: Vec<i64> = tags.iter().map(|tag| tag.id().into()).collect();
    let released: Vec<(i64, String)> = sqlx::query_as(
        "WITH unused AS (
             SELECT id, guid FROM groups
             WHERE id = ANY ($1::bigint[]) AND (guid IS NOT NULL) IS TRUE
               AND NOT EXISTS (SELECT 1 FROM policies WHERE policies.group_id = groups.id)
               AND NOT EXISTS (SELECT 1 FROM destinations WHERE destinations.group_id = groups.id))
         UPDATE groups SET guid = NULL, type = NULL FROM unused WHERE groups.id = unused.id
         RETURNING unused.id::bigint, unused.guid",
    )
    .bind(candidates)
    .fetch_all(tx)
    .await
    .doing("releasing tags")?;
    released.into_iter().map(|(id, guid)| Ok((row::tag(id)?, guid))).collect()
}

fn assigned((tag, id, kind): (i64, String, String)) -> Result<AssignedTag, StoreError> {
    Ok(AssignedTag { id, kind, tag: row::tag(tag)? })
}
