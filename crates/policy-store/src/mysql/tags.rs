//! Table `groups`: a row per possible tag, the tag being the row's id (spec/policy-server.md §4).
//! MySQL 8 reserves the word, hence the backticks.

use policy::{Tag, TagLength};
use serde_json::json;
use sqlx::MySqlConnection;

use super::{
    names::{self, Names},
    rows,
};
use crate::{AssignedTag, StoreError, error::Doing, row};

/// Makes the rows if there are none; later changes of the length change only how tags are printed.
///
/// The numbers are counted out in base 256, a digit for each byte of a tag, since the depth of a
/// recursion is limited.
pub(super) async fn seed(tx: &mut MySqlConnection, length: TagLength) -> Result<(), StoreError> {
    let seeded: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM `groups`)")
        .fetch_one(&mut *tx)
        .await
        .doing("looking for tags")?;
    if seeded {
        return Ok(());
    }
    let highest = length.highest();
    let digit = |name| rows::table(name, &[rows::number("value", 0)]);
    let digits = |needed: bool| {
        let highest = if needed { 255 } else { 0 };
        json!((0..=highest).map(|digit| [digit]).collect::<Vec<_>>()).to_string()
    };
    let insert = format!(
        "INSERT INTO `groups` (id)
         SELECT high.value * 65536 + middle.value * 256 + low.value AS id
         FROM {} STRAIGHT_JOIN {} STRAIGHT_JOIN {}
         HAVING id BETWEEN 1 AND ? ORDER BY id",
        digit("high"),
        digit("middle"),
        digit("low"),
    );
    sqlx::query(super::fixed(insert))
        .bind(digits(highest > 0xffff))
        .bind(digits(highest > 0xff))
        .bind(digits(true))
        .bind(highest)
        .execute(tx)
        .await
        .doing("making the tags")?;
    Ok(())
}

pub(super) async fn list(tx: &mut MySqlConnection) -> Result<Vec<AssignedTag>, StoreError> {
    let rows: Vec<(i64, String, String)> = sqlx::query_as(
        "SELECT id, guid, COALESCE(type, '') FROM `groups` WHERE guid IS NOT NULL ORDER BY id",
    )
    .fetch_all(tx)
    .await
    .doing("listing tags")?;
    rows.into_iter().map(assigned).collect()
}

pub(super) async fn of(
    tx: &mut MySqlConnection,
    names: &Names,
    ids: &[&str],
) -> Result<Vec<AssignedTag>, StoreError> {
    let asked = names::storable(ids);
    let table = rows::table("asked", &[names.groups.column("guid", 0)]);
    let select = format!(
        "SELECT DISTINCT g.id, g.guid, COALESCE(g.type, '') FROM {table}
         STRAIGHT_JOIN `groups` g ON g.guid = asked.guid"
    );
    let mut found = Vec::new();
    for batch in rows::batches(asked.iter().map(|id| json!([id]))) {
        let rows: Vec<(i64, String, String)> = sqlx::query_as(super::fixed(select.clone()))
            .bind(batch)
            .fetch_all(&mut *tx)
            .await
            .doing("looking up tags")?;
        found.extend(rows);
    }
    found.retain(|(_, guid, _)| asked.contains(guid.as_str()));
    found.into_iter().map(assigned).collect()
}

/// Locks what it finds: an older server gives out tags that are asked for by name without taking the
/// lock of all writers (§9.3).
pub(super) async fn free(tx: &mut MySqlConnection, limit: usize) -> Result<Vec<Tag>, StoreError> {
    let rows: Vec<i64> = sqlx::query_scalar(
        "SELECT id FROM `groups` FORCE INDEX (netman_free_tags)
         WHERE guid IS NULL AND id NOT IN (SELECT tag FROM netman_quarantine)
         ORDER BY id LIMIT ? FOR UPDATE",
    )
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(tx)
    .await
    .doing("looking for free tags")?;
    rows.into_iter().map(row::tag).collect()
}

pub(super) async fn give(
    tx: &mut MySqlConnection,
    given: &[(Tag, &str)],
    kind: &str,
) -> Result<(), StoreError> {
    if let Some((_, id)) = given.iter().find(|(_, id)| !names::is_storable(id)) {
        return Err(StoreError::TooLong { id: (*id).to_owned(), most: names::LONGEST });
    }
    let table = || rows::table("given", &[rows::number("tag", 0), rows::text("guid", 1)]);
    let update = format!(
        "UPDATE {} STRAIGHT_JOIN `groups` g ON g.id = given.tag AND g.guid IS NULL
         SET g.guid = given.guid, g.type = ?",
        table()
    );
    let delete =
        format!("DELETE q FROM {} STRAIGHT_JOIN netman_quarantine q ON q.tag = given.tag", table());
    let mut taken = 0;
    for batch in rows::batches(given.iter().map(|(tag, id)| json!([tag.id(), id]))) {
        let updated = sqlx::query(super::fixed(update.clone()))
            .bind(&batch)
            .bind(kind)
            .execute(&mut *tx)
            .await
            .map_err(names::indistinct("giving out tags"))?;
        taken += updated.rows_affected();
        sqlx::query(super::fixed(delete.clone()))
            .bind(batch)
            .execute(&mut *tx)
            .await
            .doing("taking tags out of quarantine")?;
    }
    if taken == given.len() as u64 { Ok(()) } else { Err(StoreError::Overtaken) }
}

pub(super) async fn release(
    tx: &mut MySqlConnection,
    tags: &[Tag],
) -> Result<Vec<(Tag, String)>, StoreError> {
    let table = || rows::table("given", &[rows::number("tag", 0)]);
    // Joins that must find nothing, as MariaDB reads a NOT EXISTS from the whole table.
    let select = format!(
        "SELECT DISTINCT g.id, g.guid FROM {} STRAIGHT_JOIN `groups` g ON g.id = given.tag
         LEFT JOIN policies p ON p.group_id = g.id
         LEFT JOIN destinations d ON d.group_id = g.id
         WHERE g.guid IS NOT NULL AND p.id IS NULL AND d.id IS NULL",
        table()
    );
    let update = format!(
        "UPDATE {} STRAIGHT_JOIN `groups` g ON g.id = given.tag SET g.guid = NULL, g.type = NULL",
        table()
    );
    let mut unused: Vec<(i64, String)> = Vec::new();
    for batch in rows::batches(tags.iter().map(|tag| json!([tag.id()]))) {
        let rows: Vec<(i64, String)> = sqlx::query_as(super::fixed(select.clone()))
            .bind(batch)
            .fetch_all(&mut *tx)
            .await
            .doing("looking for tags that nobody uses")?;
        unused.extend(rows);
    }
    for batch in rows::batches(unused.iter().map(|(id, _)| json!([id]))) {
        sqlx::query(super::fixed(update.clone()))
            .bind(batch)
            .execute(&mut *tx)
            .await
            .doing("releasing tags")?;
    }
    unused.into_iter().map(|(id, guid)| Ok((row::tag(id)?, guid))).collect()
}

fn assigned((tag, id, kind): (i64, String, String)) -> Result<AssignedTag, StoreError> {
    Ok(AssignedTag { id, kind, tag: row::tag(tag)? })
}
