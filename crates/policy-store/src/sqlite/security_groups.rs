//! Table `security_groups` (spec/policy-server.md §9.1).

use policy::SecurityGroup;
use serde_json::{Value, json};
use sqlx::{FromRow, SqliteConnection};

use crate::{NumberedGroup, StoreError, error::Doing};

#[derive(FromRow)]
struct GroupRow {
    id: i64,
    guid: String,
    name: String,
    rules: String,
    staging_default: bool,
    running_default: bool,
    staging_spaces: String,
    running_spaces: String,
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
    let rows: Vec<Value> = groups.iter().map(|group| columns(group)).collect();
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

/// A group as an array of its columns; lists are kept as text.
fn columns(group: &SecurityGroup) -> Value {
    let SecurityGroup {
        guid,
        name,
        rules,
        staging_default,
        running_default,
        staging_spaces,
        running_spaces,
    } = group;
    let (staging, running) = (json!(staging_spaces).to_string(), json!(running_spaces).to_string());
    json!([guid, name, rules, staging_default, running_default, staging, running])
}

impl TryFrom<GroupRow> for NumberedGroup {
    type Error = StoreError;

    fn try_from(row: GroupRow) -> Result<Self, StoreError> {
        let GroupRow {
            id,
            guid,
            name,
            rules,
            staging_default,
            running_default,
            staging_spaces,
            running_spaces,
        } = row;
        let spaces = |text: String| {
            serde_json::from_str(&text).map_err(|_| StoreError::unreadable("list of spaces", text))
        };
        Ok(Self {
            id: u64::try_from(id).map_err(|_| StoreError::unreadable("group number", id))?,
            group: SecurityGroup {
                guid,
                name,
                rules,
                staging_default,
                running_default,
                staging_spaces: spaces(staging_spaces)?,
                running_spaces: spaces(running_spaces)?,
            },
        })
    }
}
