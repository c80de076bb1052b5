//! Table `groups`: a row per possible tag, the tag being the row's id (spec/policy-server.md §4).

use policy::{Tag, TagLength};
use serde_json::json;
use sqlx::SqliteConnection;

use crate::{AssignedTag, StoreError, error::Doing, row};

/// Makes the rows if there are none; later changes of the length change only how tags are printed.
pub(super) async fn seed(tx: &mut SqliteConnection, length: TagLength) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO groups (id, guid)
         WITH RECURSIVE tag (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM tag WHERE id < ?)
         SELECT id, NULL FROM tag WHERE NOT EXISTS (SELECT 1 FROM groups)",
    )
    .bind(length.highest())
    .execute(tx)
    .await
    .doing("making the tags")?;
    Ok(())
}

pub(super) async fn list(tx: &mut SqliteConnection) -> Result<Vec<AssignedTag>, StoreError> {
    let rows: Vec<(i64, String, String)> = sqlx::query_as(
        "SELECT id, guid, coalesce(type, '') FROM groups WHERE guid IS NOT NULL ORDER BY id",
    )
    .fetch_all(tx)
    .await
    .doing("listing tags")?;
    rows.into_iter().map(assigned).collect()
}

pub(super) async fn of(
    tx: &mut SqliteConnection,
    ids: &[&str],
) -> Result<Vec<AssignedTag>, StoreError> {
    let rows: Vec<(i64, String, String)> = sqlx::query_as(
        "SELECT id, guid, coalesce(type, '') FROM groups
         WHERE guid IN (SELECT value FROM json_each(?))",
    )
    .bind(json!(ids).to_string())
    .fetch_all(tx)
    .await
    .doing("looking up tags")?;
    rows.into_iter().map(assigned).collect()
}

pub(super) async fn free(tx: &mut SqliteConnection, limit: usize) -> Result<Vec<Tag>, StoreError> {
    let rows: Vec<i64> = sqlx::query_scalar(
        "SELECT id FROM groups
         WHERE guid IS NULL AND id NOT IN (SELECT tag FROM netman_quarantine)
         ORDER BY id LIMIT ?",
    )
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(tx)
    .await
    .doing("looking for free tags")?;
    rows.into_iter().map(row::tag).collect()
}

pub(super) async fn give(
    tx: &mut SqliteConnection,
    given: &[(Tag, &str)],
    kind: &str,
) -> Result<(), StoreError> {
    let rows: Vec<_> = given.iter().map(|(tag, id)| (tag.id(), id)).collect();
    let rows = json!(rows).to_string();
    sqlx::query(
        "UPDATE groups SET guid = given.value ->> 1, type = ?2
         FROM json_each(?1) AS given WHERE groups.id = given.value ->> 0",
    )
    .bind(&rows)
    .bind(kind)
    .execute(&mut *tx)
    .await
    .doing("giving out tags")?;
    sqlx::query(
        "DELETE FROM netman_quarantine WHERE tag IN (SELECT value ->> 0 FROM json_each(?))",
    )
    .bind(&rows)
    .execute(tx)
    .await
    .doing("taking tags out of quarantine")?;
    Ok(())
}

pub(super) async fn release(
    tx: &mut SqliteConnection,
    tags: &[Tag],
) -> Result<Vec<(Tag, String)>, StoreError> {
    let candidates: Vec<u32> = tags.iter().map(|tag| tag.id()).collect();
    let unused: Vec<(i64, String)> = sqlx::query_as(
        "SELECT id, guid FROM groups
         WHERE id IN (SELECT value FROM json_each(?)) AND guid IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM policies WHERE policies.group_id = groups.id)
           AND NOT EXISTS (SELECT 1 FROM destinations WHERE destinations.group_id = groups.id)",
    )
    .bind(json!(candidates).to_string())
    .fetch_all(&mut *tx)
    .await
    .doing("looking for tags that nobody uses")?;
    let ids: Vec<i64> = unused.iter().map(|(id, _)| *id).collect();
    sqlx::query(
        "UPDATE groups SET guid = NULL, type = NULL WHERE id IN (SELECT value FROM json_each(?))",
    )
    .bind(json!(ids).to_string())
    .execute(tx)
    .await
    .doing("releasing tags")?;
    unused.into_iter().map(|(id, guid)| Ok((row::tag(id)?, guid))).collect()
}

fn assigned((tag, id, kind): (i64, String, String)) -> Result<AssignedTag, StoreError> {
    Ok(AssignedTag { id, kind, tag: row::tag(tag)? })
}
