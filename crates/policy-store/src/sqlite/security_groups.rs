//! Table `security_groups` (spec/policy-server.md §9.1), and what `netman_revision` says of it.

use policy::SecurityGroup;
use serde_json::{Value, json};
use sqlx::SqliteConnection;

use crate::{NumberedGroup, StoreError, error::Doing, row::GroupRow};

pub(super) async fn are_known(tx: &mut SqliteConnection) -> Result<bool, StoreError> {
    sqlx::query_scalar("SELECT groups_known FROM netman_revision")
        .fetch_one(tx)
        .await
        .doing("asking whether security groups are known")
}

pub(super) async fn note_known(tx: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query("UPDATE netman_revision SET groups_known = 1 WHERE NOT groups_known")
        .execute(tx)
        .await
        .doing("noting that security groups are known")?;
    Ok(())
}

pub(super) async fn list(tx: &mut SqliteConnection) -> Result<Vec<NumberedGroup>, StoreError> {
    let rows: Vec<GroupRow> = sqlx::query_as(
        "SELECT id, guid, name, coalesce(rules, '') AS rules,
                coalesce(staging_default, 0) AS staging_default,
                coalesce(running_default, 0) AS running_default,
                coalesce(staging_spaces, '[]') AS staging_spaces,
                coalesce(running_spaces, '[]') AS running_spaces
         FROM security_groups ORDER BY id",
    )
    .fetch_all(tx)
    .await
    .doing("listing security groups")?;
    rows.into_iter().map(NumberedGroup::try_from).collect()
}

pub(super) async fn put(
    tx: &mut SqliteConnection,
    groups: &[&SecurityGroup],
) -> Result<(), StoreError> {
    let rows: Vec<Value> = groups
        .iter()
        .map(|group| {
            let GroupRow {
                id: _,
                guid,
                name,
                rules,
                staging_default,
                running_default,
                staging_spaces,
                running_spaces,
            } = GroupRow::from(*group);
            json!([
                guid,
                name,
                rules,
                staging_default,
                running_default,
                staging_spaces,
                running_spaces
            ])
        })
        .collect();
    sqlx::query(
        "INSERT INTO security_groups (guid, name, rules, staging_default, running_default,
                                      staging_spaces, running_spaces)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5,
                value ->> 6
         FROM json_each(?) WHERE true ORDER BY key
         ON CONFLICT (guid) DO UPDATE SET
             name = excluded.name, rules = excluded.rules,
             staging_default = excluded.staging_default,
             running_default = excluded.running_default,
             staging_spaces = excluded.staging_spaces, running_spaces = excluded.running_spaces",
    )
    .bind(json!(rows).to_string())
    .execute(tx)
    .await
    .doing("writing security groups")?;
    Ok(())
}

pub(super) async fn remove(tx: &mut SqliteConnection, guids: &[&str]) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM security_groups WHERE guid IN (SELECT value FROM json_each(?))")
        .bind(json!(guids).to_string())
        .execute(tx)
        .await
        .doing("removing security groups")?;
    Ok(())
}
