//! Table `groups`: a row per possible tag, the tag being the row's id (spec/policy-server.md §4).

use std::collections::{HashMap, HashSet};

use policy::{Tag, TagLength};
use serde_json::json;
use sqlx::SqliteConnection;

use super::row;
use crate::{AssignedTag, StoreError, error::Doing};

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
    rows.into_iter()
        .map(|(tag, id, kind)| Ok(AssignedTag { id, kind, tag: row::tag(tag)? }))
        .collect()
}

/// The tags of all `ids`; those without one get the lowest free ones, in this order.
pub(super) async fn ensure(
    tx: &mut SqliteConnection,
    ids: &[&str],
    kind: &str,
) -> Result<HashMap<String, Tag>, StoreError> {
    if let Some(&id) = ids.iter().find(|id| !row::can_be_kept(id)) {
        return Err(StoreError::Nul { id: id.to_owned() });
    }
    let mut tags = held(tx, ids, kind).await?;
    let mut named = HashSet::new();
    let lacking: Vec<_> =
        ids.iter().filter(|id| !tags.contains_key(**id) && named.insert(**id)).collect();
    let free: Vec<i64> =
        sqlx::query_scalar("SELECT id FROM groups WHERE guid IS NULL ORDER BY id LIMIT ?")
            .bind(i64::try_from(lacking.len()).expect("a batch fits in memory"))
            .fetch_all(&mut *tx)
            .await
            .doing("looking for free tags")?;
    if free.len() < lacking.len() {
        return Err(StoreError::NoTagLeft);
    }
    let given: Vec<_> = free.iter().zip(&lacking).collect();
    sqlx::query(
        "UPDATE groups SET guid = given.value ->> 1, type = ?2
         FROM json_each(?1) AS given WHERE groups.id = given.value ->> 0",
    )
    .bind(json!(given).to_string())
    .bind(kind)
    .execute(&mut *tx)
    .await
    .doing("giving out tags")?;
    for (tag, id) in given {
        tags.insert((**id).to_owned(), row::tag(*tag)?);
    }
    Ok(tags)
}

/// The tags that `ids` have already; an error if one of them is of another kind.
async fn held(
    tx: &mut SqliteConnection,
    ids: &[&str],
    kind: &str,
) -> Result<HashMap<String, Tag>, StoreError> {
    let rows: Vec<(i64, String, String)> = sqlx::query_as(
        "SELECT id, guid, coalesce(type, '') FROM groups
         WHERE guid IN (SELECT value FROM json_each(?))",
    )
    .bind(json!(ids).to_string())
    .fetch_all(tx)
    .await
    .doing("looking up tags")?;
    rows.into_iter()
        .map(|(tag, id, held)| {
            if held == kind {
                Ok((id, row::tag(tag)?))
            } else {
                Err(StoreError::TagOfOtherKind { id, held, asked: kind.to_owned() })
            }
        })
        .collect()
}

/// Frees those of `tags` that are neither a source nor a destination any more.
pub(super) async fn release(
    tx: &mut SqliteConnection,
    tags: impl IntoIterator<Item = Tag>,
) -> Result<(), StoreError> {
    let candidates: Vec<u32> = tags.into_iter().map(Tag::id).collect();
    sqlx::query(
        "UPDATE groups SET guid = NULL, type = NULL
         WHERE id IN (SELECT value FROM json_each(?))
           AND NOT EXISTS (SELECT 1 FROM policies WHERE policies.group_id = groups.id)
           AND NOT EXISTS (SELECT 1 FROM destinations WHERE destinations.group_id = groups.id)",
    )
    .bind(json!(candidates).to_string())
    .execute(tx)
    .await
    .doing("releasing tags")?;
    Ok(())
}
