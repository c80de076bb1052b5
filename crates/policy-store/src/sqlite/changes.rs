//! Tables `netman_life`, `netman_revision` and `netman_changes` (design §2.1).

use policy::{Lease, Life, Policy, Revision, TaggedPolicy, Version};
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::row::{self, ChangeRow};
use crate::{Change, Changes, StoreError, error::Doing};

/// How many revisions the log keeps. Servers look every 200 ms; one that was away for longer than
/// this takes the whole state, which costs little more.
const KEPT: i64 = 1000;

/// Names the life of a new database.
pub(super) async fn begin_life(tx: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO netman_life (id, life) VALUES (1, ?) ON CONFLICT DO NOTHING")
        .bind(Uuid::new_v4().to_string())
        .execute(tx)
        .await
        .doing("beginning the database's life")?;
    Ok(())
}

pub(super) async fn version(tx: &mut SqliteConnection) -> Result<Version, StoreError> {
    read(tx).await.map(|(version, _)| version)
}

pub(super) async fn since(
    tx: &mut SqliteConnection,
    since: &Version,
) -> Result<Changes, StoreError> {
    let (now, compacted) = read(tx).await?;
    if *since == now {
        return Ok(Changes::Log(Vec::new()));
    }
    if !now.includes(since) || since.revision < compacted {
        return Ok(Changes::Forgotten);
    }
    let rows: Vec<ChangeRow> =
        sqlx::query_as("SELECT * FROM netman_changes WHERE revision > ? ORDER BY id")
            .bind(stored(since.revision))
            .fetch_all(tx)
            .await
            .doing("reading the log of changes")?;
    let log = rows.into_iter().map(<(Revision, Change)>::try_from).collect::<Result<_, _>>()?;
    Ok(Changes::Log(log))
}

/// Takes the next revision, at which `policies` came or went.
pub(super) async fn take_revision(
    tx: &mut SqliteConnection,
    kind: &'static str,
    policies: &[TaggedPolicy],
) -> Result<Version, StoreError> {
    let rows: Vec<Value> = policies
        .iter()
        .map(|TaggedPolicy { policy, source_tag, destination_tag }| {
            let Policy { source, destination, protocol, ports } = policy;
            json!([
                source.as_str(),
                source_tag.id(),
                destination.as_str(),
                destination_tag.id(),
                protocol.as_str(),
                ports.start(),
                ports.end(),
            ])
        })
        .collect();
    let version = next(tx).await?;
    sqlx::query(
        "INSERT INTO netman_changes (revision, kind, source, source_tag, destination,
                                     destination_tag, protocol, start_port, end_port)
         SELECT ?1, ?2, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4,
                value ->> 5, value ->> 6
         FROM json_each(?3)",
    )
    .bind(stored(version.revision))
    .bind(kind)
    .bind(json!(rows).to_string())
    .execute(tx)
    .await
    .doing("logging a change of policies")?;
    Ok(version)
}

/// Takes the next revision, at which `leases` came onto or left the list.
pub(super) async fn take_lease_revision(
    tx: &mut SqliteConnection,
    leases: &[(&'static str, Lease)],
) -> Result<Version, StoreError> {
    let version = next(tx).await?;
    for (kind, lease) in leases {
        let Lease { underlay_ip, overlay_subnet, overlay_hardware_addr } = lease;
        sqlx::query(
            "INSERT INTO netman_changes (revision, kind, underlay_ip, overlay_subnet, overlay_hwaddr)
             VALUES (?, ?, ?, ?, ?)",
        )
        .bind(stored(version.revision))
        .bind(kind)
        .bind(underlay_ip.to_string())
        .bind(overlay_subnet.to_string())
        .bind(overlay_hardware_addr.to_string())
        .execute(&mut *tx)
        .await
        .doing("logging a change of leases")?;
    }
    Ok(version)
}

/// Takes a revision and forgets what is [`KEPT`] revisions old.
async fn next(tx: &mut SqliteConnection) -> Result<Version, StoreError> {
    sqlx::query(
        "UPDATE netman_revision
         SET revision = revision + 1, compacted = max(compacted, revision + 1 - ?)",
    )
    .bind(KEPT)
    .execute(&mut *tx)
    .await
    .doing("taking a revision")?;
    sqlx::query(
        "DELETE FROM netman_changes WHERE revision <= (SELECT compacted FROM netman_revision)",
    )
    .execute(&mut *tx)
    .await
    .doing("compacting the log of changes")?;
    version(tx).await
}

async fn read(tx: &mut SqliteConnection) -> Result<(Version, Revision), StoreError> {
    let (life, revision, compacted): (String, i64, i64) = sqlx::query_as(
        "SELECT life, revision, compacted FROM netman_life CROSS JOIN netman_revision",
    )
    .fetch_one(tx)
    .await
    .doing("reading the revision")?;
    let version = Version {
        life: Life::new(&life).map_err(|_| StoreError::unreadable("life", life))?,
        revision: row::revision(revision)?,
    };
    Ok((version, row::revision(compacted)?))
}

fn stored(Revision(number): Revision) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
