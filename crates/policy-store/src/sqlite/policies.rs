//! Tables `policies`, `destinations` and `policies_info`.

use std::collections::BTreeSet;

use policy::{AppGuid, Policy, TaggedPolicy};
use serde_json::{Value, json};
use sqlx::{FromRow, SqliteConnection};

use crate::{
    Filter, StoreError,
    error::Doing,
    row::{self, PolicyRow},
    session::Found,
    store::can_be_kept,
};

pub(super) async fn select(
    tx: &mut SqliteConnection,
    filter: &Filter,
) -> Result<Vec<TaggedPolicy>, StoreError> {
    let set = |apps: &BTreeSet<AppGuid>| Some(json!(ids(apps)).to_string());
    let (touching, sources, destinations) = match filter {
        Filter::All => (None, None, None),
        Filter::Touching(apps) => (set(apps), None, None),
        Filter::Between { sources, destinations } => {
            (None, sources.as_ref().and_then(set), destinations.as_ref().and_then(set))
        }
    };
    let rows: Vec<PolicyRow> = sqlx::query_as(
        "SELECT s.guid AS source, s.id AS source_tag, t.guid AS destination,
                t.id AS destination_tag, d.protocol, d.start_port, d.end_port
         FROM policies p
         JOIN groups s ON s.id = p.group_id
         JOIN destinations d ON d.id = p.destination_id
         JOIN groups t ON t.id = d.group_id
         WHERE (?1 IS NULL OR s.guid IN (SELECT value FROM json_each(?1))
                           OR t.guid IN (SELECT value FROM json_each(?1)))
           AND (?2 IS NULL OR s.guid IN (SELECT value FROM json_each(?2)))
           AND (?3 IS NULL OR t.guid IN (SELECT value FROM json_each(?3)))",
    )
    .bind(touching)
    .bind(sources)
    .bind(destinations)
    .fetch_all(tx)
    .await
    .doing("listing policies")?;
    row::matchable(rows, |row| row).into_iter().map(TaggedPolicy::try_from).collect()
}

#[derive(FromRow)]
struct FoundRow {
    id: i64,
    destination_id: i64,
    #[sqlx(flatten)]
    policy: PolicyRow,
}

pub(super) async fn find(
    tx: &mut SqliteConnection,
    policies: &[&Policy],
) -> Result<Vec<Found>, StoreError> {
    let asked: Vec<Value> = policies
        .iter()
        .map(|Policy { source, destination, protocol, ports }| {
            let (protocol, start, end) = (protocol.as_str(), ports.start(), ports.end());
            json!([source.as_str(), destination.as_str(), protocol, start, end])
        })
        .collect();
    let rows: Vec<FoundRow> = sqlx::query_as(
        "SELECT DISTINCT p.id, d.id AS destination_id, s.guid AS source, s.id AS source_tag,
                t.guid AS destination, t.id AS destination_tag,
                d.protocol, d.start_port, d.end_port
         FROM json_each(?) AS asked
         CROSS JOIN groups s ON s.guid = asked.value ->> 0
         CROSS JOIN groups t ON t.guid = asked.value ->> 1
         CROSS JOIN destinations d ON d.group_id = t.id AND d.protocol = asked.value ->> 2
              AND d.start_port = asked.value ->> 3 AND d.end_port = asked.value ->> 4
         CROSS JOIN policies p ON p.group_id = s.id AND p.destination_id = d.id",
    )
    .bind(json!(asked).to_string())
    .fetch_all(tx)
    .await
    .doing("looking up policies")?;
    rows.into_iter()
        .map(|FoundRow { id, destination_id, policy }| {
            Ok(Found { id, destination_id, tagged: policy.try_into()? })
        })
        .collect()
}

pub(super) async fn insert(
    tx: &mut SqliteConnection,
    policies: &[TaggedPolicy],
) -> Result<(), StoreError> {
    let rows: Vec<Value> = policies
        .iter()
        .map(|TaggedPolicy { policy, source_tag, destination_tag }| {
            let Policy { source: _, destination: _, protocol, ports } = policy;
            json!([
                source_tag.id(),
                destination_tag.id(),
                protocol.as_str(),
                ports.start(),
                ports.end(),
                ports.as_single().unwrap_or(0),
            ])
        })
        .collect();
    let rows = json!(rows).to_string();
    sqlx::query(
        "INSERT INTO destinations (group_id, protocol, start_port, end_port, port)
         SELECT value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
         FROM json_each(?) WHERE true
         ON CONFLICT DO NOTHING",
    )
    .bind(&rows)
    .execute(&mut *tx)
    .await
    .doing("adding destinations")?;
    sqlx::query(
        "INSERT INTO policies (group_id, destination_id)
         SELECT value ->> 0, d.id FROM json_each(?) AS new
         CROSS JOIN destinations d ON d.group_id = new.value ->> 1
              AND d.protocol = new.value ->> 2
              AND d.start_port = new.value ->> 3 AND d.end_port = new.value ->> 4",
    )
    .bind(&rows)
    .execute(tx)
    .await
    .doing("adding policies")?;
    Ok(())
}

pub(super) async fn remove(tx: &mut SqliteConnection, found: &[Found]) -> Result<(), StoreError> {
    let policies: Vec<i64> = found.iter().map(|found| found.id).collect();
    sqlx::query("DELETE FROM policies WHERE id IN (SELECT value FROM json_each(?))")
        .bind(json!(policies).to_string())
        .execute(&mut *tx)
        .await
        .doing("removing policies")?;
    let destinations: BTreeSet<i64> = found.iter().map(|found| found.destination_id).collect();
    sqlx::query(
        "DELETE FROM destinations WHERE id IN (SELECT value FROM json_each(?))
           AND NOT EXISTS (SELECT 1 FROM policies WHERE policies.destination_id = destinations.id)",
    )
    .bind(json!(destinations).to_string())
    .execute(tx)
    .await
    .doing("removing destinations")?;
    Ok(())
}

/// The names among which a policy's may be.
fn ids(apps: &BTreeSet<AppGuid>) -> Vec<&str> {
    apps.iter().map(AppGuid::as_str).filter(|app| can_be_kept(app)).collect()
}
