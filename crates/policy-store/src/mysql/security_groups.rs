//! Table `security_groups` (spec/policy-server.md §9.1), and what `netman_revision` says of it.

use policy::SecurityGroup;
use serde_json::{Value, json};
use sqlx::MySqlConnection;

use super::{
    names::{self, Names},
    rows,
};
use crate::{NumberedGroup, StoreError, error::Doing, row::GroupRow};

/// Whether a row is exactly the one meant, whatever the column's collation is.
const SAME: &str = "CONVERT(g.guid USING utf8mb4) COLLATE utf8mb4_bin = new.exact";

pub(super) async fn are_known(tx: &mut MySqlConnection) -> Result<bool, StoreError> {
    sqlx::query_scalar("SELECT groups_known FROM netman_revision")
        .fetch_one(tx)
        .await
        .doing("asking whether security groups are known")
}

pub(super) async fn note_known(tx: &mut MySqlConnection) -> Result<(), StoreError> {
    sqlx::query("UPDATE netman_revision SET groups_known = true WHERE NOT groups_known")
        .execute(tx)
        .await
        .doing("noting that security groups are known")?;
    Ok(())
}

pub(super) async fn list(tx: &mut MySqlConnection) -> Result<Vec<NumberedGroup>, StoreError> {
    let rows: Vec<GroupRow> = sqlx::query_as(
        "SELECT id, guid, name, COALESCE(rules, '') AS rules,
                COALESCE(staging_default, 0) AS staging_default,
                COALESCE(running_default, 0) AS running_default,
                COALESCE(CAST(staging_spaces AS CHAR), '[]') AS staging_spaces,
                COALESCE(CAST(running_spaces AS CHAR), '[]') AS running_spaces
         FROM security_groups ORDER BY id",
    )
    .fetch_all(tx)
    .await
    .doing("listing security groups")?;
    rows.into_iter().map(NumberedGroup::try_from).collect()
}

pub(super) async fn put(
    tx: &mut MySqlConnection,
    names: &Names,
    groups: &[&SecurityGroup],
) -> Result<(), StoreError> {
    let table = || {
        rows::table(
            "new",
            &[
                names.security_groups.column("guid", 0),
                rows::text("exact", 0),
                rows::text("name", 1),
                rows::text("rules", 2),
                rows::number("staging_default", 3),
                rows::number("running_default", 4),
                rows::text("staging_spaces", 5),
                rows::text("running_spaces", 6),
            ],
        )
    };
    let update = format!(
        "UPDATE {} STRAIGHT_JOIN security_groups g ON g.guid = new.guid AND {SAME}
         SET g.name = new.name, g.rules = new.rules, g.staging_default = new.staging_default,
             g.running_default = new.running_default, g.staging_spaces = new.staging_spaces,
             g.running_spaces = new.running_spaces",
        table()
    );
    let insert = format!(
        "INSERT INTO security_groups (guid, name, rules, staging_default, running_default,
                                      staging_spaces, running_spaces)
         SELECT new.exact, new.name, new.rules, new.staging_default, new.running_default,
                new.staging_spaces, new.running_spaces
         FROM {} LEFT JOIN security_groups g ON g.guid = new.guid AND {SAME}
         WHERE g.id IS NULL ORDER BY new.n",
        table()
    );
    for batch in rows::batches(groups.iter().map(|group| columns(group))) {
        sqlx::query(super::fixed(update.clone()))
            .bind(&batch)
            .execute(&mut *tx)
            .await
            .doing("replacing security groups")?;
        sqlx::query(super::fixed(insert.clone()))
            .bind(batch)
            .execute(&mut *tx)
            .await
            .map_err(names::indistinct("adding security groups"))?;
    }
    Ok(())
}

pub(super) async fn remove(
    tx: &mut MySqlConnection,
    names: &Names,
    guids: &[&str],
) -> Result<(), StoreError> {
    let columns = [names.security_groups.column("guid", 0), rows::text("exact", 0)];
    let delete = format!(
        "DELETE g FROM {} STRAIGHT_JOIN security_groups g ON g.guid = new.guid AND {SAME}",
        rows::table("new", &columns)
    );
    for batch in rows::batches(guids.iter().map(|guid| json!([guid]))) {
        sqlx::query(super::fixed(delete.clone()))
            .bind(batch)
            .execute(&mut *tx)
            .await
            .doing("removing security groups")?;
    }
    Ok(())
}

/// A group as an array of its columns; truth is 1.
fn columns(group: &SecurityGroup) -> Value {
    let GroupRow {
        id: _,
        guid,
        name,
        rules,
        staging_default,
        running_default,
        staging_spaces,
        running_spaces,
    } = GroupRow::from(group);
    let (at_staging, at_running) = (u8::from(staging_default), u8::from(running_default));
    json!([guid, name, rules, at_staging, at_running, staging_spaces, running_spaces])
}
