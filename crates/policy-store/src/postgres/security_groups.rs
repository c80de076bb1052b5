//! Table `security_groups` (spec/policy-server.md §9.1), and what `netman_revision` says of it.

use policy::SecurityGroup;
use sqlx::PgConnection;

use crate::{NumberedGroup, StoreError, error::Doing, row::GroupRow};

pub(super) async fn are_known(tx: &mut PgConnection) -> Result<bool, StoreError> {
    sqlx::query_scalar("SELECT groups_known FROM netman_revision")
        .fetch_one(tx)
        .await
        .doing("asking whether security groups are known")
}

pub(super) async fn note_known(tx: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query("UPDATE netman_revision SET groups_known = true WHERE NOT groups_known")
        .execute(tx)
        .await
        .doing("noting that security groups are known")?;
    Ok(())
}

pub(super) async fn list(tx: &mut PgConnection) -> Result<Vec<NumberedGroup>, StoreError> {
    let rows: Vec<GroupRow> = sqlx::query_as(
        "SELECT id, guid, name, coalesce(rules, '') AS rules,
                coalesce(staging_default, false) AS staging_default,
                coalesce(running_default, false) AS running_default,
                coalesce(staging_spaces::text, '[]') AS staging_spaces,
                coalesce(running_spaces::text, '[]') AS running_spaces
         FROM security_groups ORDER BY id",
    )
    .fetch_all(tx)
    .await
    .doing("listing security groups")?;
    rows.into_iter().map(NumberedGroup::try_from).collect()
}

/// Those that exist are updated, not inserted in vain, which would use up numbers.
pub(super) async fn put(
    tx: &mut PgConnection,
    groups: &[&SecurityGroup],
) -> Result<(), StoreError> {
    let rows: Vec<GroupRow> = groups.iter().map(|group| GroupRow::from(*group)).collect();
    let texts = |text: fn(&GroupRow) -> &String| -> Vec<String> {
        rows.iter().map(|row| text(row).clone()).collect()
    };
    sqlx::query(
        "WITH wanted AS (
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bool[], $5::bool[],
                                  $6::text[], $7::text[]) WITH ORDINALITY
             AS wanted (guid, name, rules, staging_default, running_default, staging_spaces,
                        running_spaces, place)),
         updated AS (
             UPDATE security_groups AS existing SET
                 name = wanted.name, rules = wanted.rules,
                 staging_default = wanted.staging_default,
                 running_default = wanted.running_default,
                 staging_spaces = wanted.staging_spaces::jsonb,
                 running_spaces = wanted.running_spaces::jsonb
             FROM wanted WHERE existing.guid = wanted.guid RETURNING existing.guid)
         INSERT INTO security_groups (guid, name, rules, staging_default, running_default,
                                      staging_spaces, running_spaces)
         SELECT guid, name, rules, staging_default, running_default, staging_spaces::jsonb,
                running_spaces::jsonb
         FROM wanted WHERE guid NOT IN (SELECT guid FROM updated) ORDER BY place",
    )
    .bind(texts(|row| &row.guid))
    .bind(texts(|row| &row.name))
    .bind(texts(|row| &row.rules))
    .bind(rows.iter().map(|row| row.staging_default).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.running_default).collect::<Vec<_>>())
    .bind(texts(|row| &row.staging_spaces))
    .bind(texts(|row| &row.running_spaces))
    .execute(tx)
    .await
    .doing("writing security groups")?;
    Ok(())
}

pub(super) async fn remove(tx: &mut PgConnection, guids: &[&str]) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM security_groups WHERE guid = ANY ($1::text[])")
        .bind(guids)
        .execute(tx)
        .await
        .doing("removing security groups")?;
    Ok(())
}
