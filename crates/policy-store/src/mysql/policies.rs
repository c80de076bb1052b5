//! Tables `policies`, `destinations` and `policies_info`.

use std::collections::{BTreeSet, HashMap, HashSet};

use policy::{AppGuid, Policy, TaggedPolicy};
use serde_json::{Value, json};
use sqlx::{FromRow, MySqlConnection};

use super::{
    names::{self, Names},
    rows,
};
use crate::{
    Filter, StoreError,
    error::Doing,
    row::{self, PolicyRow},
    session::Found,
    store::can_be_kept,
};

/// How protocols compare, whatever their column's collation is.
const SAME_PROTOCOL: &str = "CONVERT(d.protocol USING utf8mb4) COLLATE utf8mb4_bin = new.protocol";

const COLUMNS: &str = "s.guid AS source, s.id AS source_tag, t.guid AS destination,
     t.id AS destination_tag, d.protocol, d.start_port, d.end_port";

pub(super) async fn select(
    tx: &mut MySqlConnection,
    names: &Names,
    filter: &Filter,
) -> Result<Vec<TaggedPolicy>, StoreError> {
    let rows = match filter {
        Filter::All => ends(tx, names, None, None).await?,
        Filter::Touching(apps) => {
            let mut rows = ends(tx, names, Some(apps), None).await?;
            rows.extend(ends(tx, names, None, Some(apps)).await?);
            rows
        }
        Filter::Between { sources, destinations } => {
            ends(tx, names, sources.as_ref(), destinations.as_ref()).await?
        }
    };
    let mut listed = HashSet::new();
    let mut policies = Vec::with_capacity(rows.len());
    for FoundRow { id, destination_id: _, policy } in row::matchable(rows, |row| &row.policy) {
        let tagged = TaggedPolicy::try_from(policy)?;
        if filter.selects(&tagged.policy) && listed.insert(id) {
            policies.push(tagged);
        }
    }
    Ok(policies)
}

#[derive(FromRow)]
struct FoundRow {
    id: i64,
    destination_id: i64,
    #[sqlx(flatten)]
    policy: PolicyRow,
}

/// The policies with their ends among these, and perhaps among what the column takes for these.
async fn ends(
    tx: &mut MySqlConnection,
    names: &Names,
    sources: Option<&BTreeSet<AppGuid>>,
    destinations: Option<&BTreeSet<AppGuid>>,
) -> Result<Vec<FoundRow>, StoreError> {
    let among = |alias: &str| {
        let asked = rows::table("asked", &[names.groups.column("guid", 0)]);
        format!("(SELECT DISTINCT guid FROM {asked}) AS {alias}")
    };
    let source = "`groups` s ON s.id = p.group_id";
    let target = "`groups` t ON t.id = d.group_id";
    // The order of the joins is given, as no statistics tell how few are asked for.
    let (from, parameters) = match (sources, destinations) {
        (None, None) => (
            format!(
                "policies p STRAIGHT_JOIN destinations d ON d.id = p.destination_id
                 STRAIGHT_JOIN {source} STRAIGHT_JOIN {target}"
            ),
            vec![],
        ),
        (Some(sources), destinations) => {
            let mut from = format!(
                "{} STRAIGHT_JOIN `groups` s ON s.guid = a.guid
                 STRAIGHT_JOIN policies p ON p.group_id = s.id
                 STRAIGHT_JOIN destinations d ON d.id = p.destination_id
                 STRAIGHT_JOIN {target}",
                among("a")
            );
            let mut parameters = vec![array(sources)];
            if let Some(destinations) = destinations {
                from += &format!(" JOIN {} ON b.guid = t.guid", among("b"));
                parameters.push(array(destinations));
            }
            (from, parameters)
        }
        (None, Some(destinations)) => (
            format!(
                "{} STRAIGHT_JOIN `groups` t ON t.guid = a.guid
                 STRAIGHT_JOIN destinations d ON d.group_id = t.id
                 STRAIGHT_JOIN policies p ON p.destination_id = d.id
                 STRAIGHT_JOIN {source}",
                among("a")
            ),
            vec![array(destinations)],
        ),
    };
    let mut query = sqlx::query_as(super::fixed(format!(
        "SELECT p.id, p.destination_id, {COLUMNS} FROM {from}"
    )));
    for parameter in parameters {
        query = query.bind(parameter);
    }
    query.fetch_all(tx).await.doing("listing policies")
}

pub(super) async fn find(
    tx: &mut MySqlConnection,
    names: &Names,
    policies: &[&Policy],
) -> Result<Vec<Found>, StoreError> {
    let asked: HashSet<&Policy> =
        policies.iter().copied().filter(|policy| can_be_stored(policy)).collect();
    let lines = asked.iter().map(|Policy { source, destination, protocol: _, ports }| {
        json!([source.as_str(), destination.as_str(), ports.start(), ports.end()])
    });
    let table = rows::table(
        "asked",
        &[
            names.groups.column("source", 0),
            names.groups.column("destination", 1),
            rows::number("start_port", 2),
            rows::number("end_port", 3),
        ],
    );
    let select = format!(
        "SELECT p.id, p.destination_id, {COLUMNS}
         FROM {table}
         STRAIGHT_JOIN `groups` s ON s.guid = asked.source
         STRAIGHT_JOIN `groups` t ON t.guid = asked.destination
         STRAIGHT_JOIN destinations d ON d.group_id = t.id
              AND d.start_port = asked.start_port AND d.end_port = asked.end_port
         STRAIGHT_JOIN policies p ON p.group_id = s.id AND p.destination_id = d.id"
    );
    let mut found = HashMap::new();
    for batch in rows::batches(lines) {
        let rows: Vec<FoundRow> = sqlx::query_as(super::fixed(select.clone()))
            .bind(batch)
            .fetch_all(&mut *tx)
            .await
            .doing("looking up policies")?;
        for FoundRow { id, destination_id, policy } in rows {
            let tagged = TaggedPolicy::try_from(policy)?;
            if asked.contains(&tagged.policy) {
                found.insert(id, Found { id, destination_id, tagged });
            }
        }
    }
    Ok(found.into_values().collect())
}

pub(super) async fn insert(
    tx: &mut MySqlConnection,
    policies: &[TaggedPolicy],
) -> Result<(), StoreError> {
    let lines = policies.iter().map(|TaggedPolicy { policy, source_tag, destination_tag }| {
        let Policy { source: _, destination: _, protocol, ports } = policy;
        json!([
            source_tag.id(),
            destination_tag.id(),
            protocol.as_str(),
            ports.start(),
            ports.end(),
            ports.as_single().unwrap_or(0),
        ])
    });
    let table = rows::table(
        "new",
        &[
            rows::number("source_tag", 0),
            rows::number("destination_tag", 1),
            rows::text("protocol", 2),
            rows::number("start_port", 3),
            rows::number("end_port", 4),
            rows::number("port", 5),
        ],
    );
    let same_destination = format!(
        "d.group_id = new.destination_tag AND d.start_port = new.start_port
         AND d.end_port = new.end_port AND {SAME_PROTOCOL}"
    );
    // Only those that are lacking, as each attempt takes a number from the table's counter.
    let destinations = format!(
        "INSERT INTO destinations (group_id, protocol, start_port, end_port, port)
         SELECT DISTINCT new.destination_tag, new.protocol, new.start_port, new.end_port, new.port
         FROM {table} LEFT JOIN destinations d ON {same_destination}
         WHERE d.id IS NULL"
    );
    let ends = format!(
        "INSERT INTO policies (group_id, destination_id)
         SELECT new.source_tag, d.id
         FROM {table} STRAIGHT_JOIN destinations d ON {same_destination}"
    );
    for batch in rows::batches(lines) {
        sqlx::query(super::fixed(destinations.clone()))
            .bind(&batch)
            .execute(&mut *tx)
            .await
            .doing("adding destinations")?;
        sqlx::query(super::fixed(ends.clone()))
            .bind(batch)
            .execute(&mut *tx)
            .await
            .doing("adding policies")?;
    }
    Ok(())
}

pub(super) async fn remove(tx: &mut MySqlConnection, found: &[Found]) -> Result<(), StoreError> {
    let table = || rows::table("gone", &[rows::number("id", 0)]);
    let policies = format!("DELETE p FROM {} STRAIGHT_JOIN policies p ON p.id = gone.id", table());
    for batch in rows::batches(found.iter().map(|found| json!([found.id]))) {
        sqlx::query(super::fixed(policies.clone()))
            .bind(batch)
            .execute(&mut *tx)
            .await
            .doing("removing policies")?;
    }
    // A join that must find nothing, as MariaDB reads a NOT EXISTS from the whole table.
    let destinations = format!(
        "DELETE d FROM {} STRAIGHT_JOIN destinations d ON d.id = gone.id
         LEFT JOIN policies p ON p.destination_id = d.id
         WHERE p.id IS NULL",
        table()
    );
    let ids: BTreeSet<i64> = found.iter().map(|found| found.destination_id).collect();
    for batch in rows::batches(ids.into_iter().map(|id| json!([id]))) {
        sqlx::query(super::fixed(destinations.clone()))
            .bind(batch)
            .execute(&mut *tx)
            .await
            .doing("removing destinations")?;
    }
    Ok(())
}

fn can_be_stored(policy: &Policy) -> bool {
    names::is_storable(policy.source.as_str()) && names::is_storable(policy.destination.as_str())
}

/// The names among which a policy's may be.
fn array(apps: &BTreeSet<AppGuid>) -> String {
    let names = apps.iter().map(AppGuid::as_str);
    let names = names.filter(|name| can_be_kept(name) && names::is_storable(name));
    Value::from_iter(names.map(|name| json!([name]))).to_string()
}
