//! Tables `policies` and `destinations`.

use std::collections::BTreeSet;

use policy::{AppGuid, Policy, TaggedPolicy};
use sqlx::{FromRow, PgConnection};

use crate::{
    Filter, StoreError,
    error::Doing,
    row::{self, PolicyRow},
    session::Found,
    store::can_be_kept,
};

pub(super) async fn select(
    tx: &mut PgConnection,
    filter: &Filter,
) -> Result<Vec<TaggedPolicy>, StoreError> {
    let (touching, sources, destinations) = match filter {
        Filter::All => (None, None, None),
        Filter::Touching(apps) => (Some(ids(apps)), None, None),
        Filter::Between { sources, destinations } => {
            (None, sources.as_ref().map(ids), destinations.as_ref().map(ids))
        }
    };
    let rows: Vec<PolicyRow> = sqlx::query_as(
        "SELECT s.guid AS source, s.id::bigint AS source_tag, t.guid AS destination,
                t.id::bigint AS destination_tag, d.protocol, d.start_port::bigint,
                d.end_port::bigint
         FROM policies p
         JOIN groups s ON s.id = p.group_id
         JOIN destinations d ON d.id = p.destination_id
         JOIN groups t ON t.id = d.group_id
         WHERE ($1::text[] IS NULL OR s.guid = ANY ($1) OR t.guid = ANY ($1))
           AND ($2::text[] IS NULL OR s.guid = ANY ($2))
           AND ($3::text[] IS NULL OR t.guid = ANY ($3))",
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
    tx: &mut PgConnection,
    policies: &[&Policy],
) -> Result<Vec<Found>, StoreError> {
    let rows: Vec<FoundRow> = sqlx::query_as(
        "SELECT DISTINCT p.id::bigint, d.id::bigint AS destination_id, s.guid AS source,
                s.id::bigint AS source_tag, t.guid AS destination,
                t.id::bigint AS destination_tag, d.protocol, d.start_port::bigint,
                d.end_port::bigint
         FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::int[])
              AS asked (source, destination, protocol, start_port, end_port)
         JOIN groups s ON s.guid = asked.source
         JOIN groups t ON t.guid = asked.destination
         JOIN destinations d ON d.group_id = t.id AND d.protocol = asked.protocol
              AND d.start_port = asked.start_port AND d.end_port = asked.end_port
         JOIN policies p ON p.group_id = s.id AND p.destination_id = d.id",
    )
    .bind(policies.iter().map(|policy| policy.source.as_str()).collect::<Vec<_>>())
    .bind(policies.iter().map(|policy| policy.destination.as_str()).collect::<Vec<_>>())
    .bind(policies.iter().map(|policy| policy.protocol.as_str()).collect::<Vec<_>>())
    .bind(policies.iter().map(|policy| i32::from(policy.ports.start())).collect::<Vec<_>>())
    .bind(policies.iter().map(|policy| i32::from(policy.ports.end())).collect::<Vec<_>>())
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
    tx: &mut PgConnection,
    policies: &[TaggedPolicy],
) -> Result<(), StoreError> {
    let tags = |tag: fn(&TaggedPolicy) -> policy::Tag| -> Vec<i64> {
        policies.iter().map(|tagged| tag(tagged).id().into()).collect()
    };
    let ports = |port: fn(&TaggedPolicy) -> u16| -> Vec<i32> {
        policies.iter().map(|tagged| port(tagged).into()).collect()
    };
    let (sources, destinations) = (tags(|p| p.source_tag), tags(|p| p.destination_tag));
    let protocols: Vec<&str> = policies.iter().map(|p| p.policy.protocol.as_str()).collect();
    let starts = ports(|p| p.policy.ports.start());
    let ends = ports(|p| p.policy.ports.end());
    sqlx::query(
        "INSERT INTO destinations (group_id, protocol, start_port, end_port, port)
         SELECT DISTINCT group_id, protocol, start_port, end_port, port
         FROM unnest($1::bigint[], $2::text[], $3::int[], $4::int[], $5::int[])
              AS new (group_id, protocol, start_port, end_port, port)
         ON CONFLICT DO NOTHING",
    )
    .bind(&destinations)
    .bind(&protocols)
    .bind(&starts)
    .bind(&ends)
    .bind(ports(|p| p.policy.ports.as_single().unwrap_or(0)))
    .execute(&mut *tx)
    .await
    .doing("adding destinations")?;
    sqlx::query(
        "INSERT INTO policies (group_id, destination_id)
         SELECT new.source, d.id
         FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::int[], $5::int[])
              AS new (source, destination, protocol, start_port, end_port)
         JOIN destinations d ON d.group_id = new.destination AND d.protocol = new.protocol
              AND d.start_port = new.start_port AND d.end_port = new.end_port",
    )
    .bind(&sources)
    .bind(&destinations)
    .bind(&protocols)
    .bind(&starts)
    .bind(&ends)
    .execute(tx)
    .await
    .doing("adding policies")?;
    Ok(())
}

pub(super) async fn remove(tx: &mut PgConnection, found: &[Found]) -> Result<(), StoreError> {
    let policies: Vec<i64> = found.iter().map(|found| found.id).collect();
    sqlx::query("DELETE FROM policies WHERE id = ANY ($1::bigint[])")
        .bind(policies)
        .execute(&mut *tx)
        .await
        .doing("removing policies")?;
    let destinations: BTreeSet<i64> = found.iter().map(|found| found.destination_id).collect();
    sqlx::query(
        "DELETE FROM destinations WHERE id = ANY ($1::bigint[])
           AND NOT EXISTS (SELECT 1 FROM policies WHERE policies.destination_id = destinations.id)",
    )
    .bind(destinations.into_iter().collect::<Vec<_>>())
    .execute(tx)
    .await
    .doing("removing destinations")?;
    Ok(())
}

/// The names among which a policy's may be.
fn ids(apps: &BTreeSet<AppGuid>) -> Vec<&str> {
    apps.iter().map(AppGuid::as_str).filter(|app| can_be_kept(app)).collect()
}
