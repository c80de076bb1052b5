//! Tables `netman_life`, `netman_revision` and `netman_changes`, and the time in `policies_info`
//! (design §2.1).

use policy::{Life, Revision, Version};
use sqlx::PgConnection;
use uuid::Uuid;

use super::hints::CHANNEL;
use crate::{
    Change, StoreError,
    error::Doing,
    row::{self, ChangeRow},
    session::Position,
};

/// Names the life of a new database.
pub(super) async fn begin_life(tx: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO netman_life (id, life) VALUES (1, $1) ON CONFLICT DO NOTHING")
        .bind(Uuid::new_v4().to_string())
        .execute(tx)
        .await
        .doing("beginning the database's life")?;
    Ok(())
}

/// Life, revision, how far the log was compacted, whether somebody else wrote, and the last update.
type Read = (String, i64, i64, bool, i64);

pub(super) async fn position(tx: &mut PgConnection) -> Result<Position, StoreError> {
    let (life, revision, compacted, foreign, last_updated): Read = sqlx::query_as(
        "SELECT life, revision, compacted, explained IS DISTINCT FROM last_updated,
                (extract(epoch FROM last_updated) * 1000000)::bigint
         FROM netman_life CROSS JOIN netman_revision CROSS JOIN policies_info",
    )
    .fetch_one(tx)
    .await
    .doing("reading the revision")?;
    let version = Version {
        life: Life::new(&life).map_err(|_| StoreError::unreadable("life", life))?,
        revision: row::revision(revision)?,
    };
    Ok(Position { version, compacted: row::revision(compacted)?, foreign, last_updated })
}

/// Whoever listens hears of it when it is committed.
pub(super) async fn advance(tx: &mut PgConnection, count: u64) -> Result<(), StoreError> {
    sqlx::query(
        "WITH taken AS (UPDATE netman_revision SET revision = revision + $1 RETURNING revision)
         SELECT pg_notify($2, revision::text) FROM taken",
    )
    .bind(row::stored(Revision(count)))
    .bind(CHANNEL)
    .execute(tx)
    .await
    .doing("taking a revision")?;
    Ok(())
}

pub(super) async fn compact(tx: &mut PgConnection, to: Revision) -> Result<(), StoreError> {
    sqlx::query(
        "WITH forgotten AS (DELETE FROM netman_changes WHERE revision <= $1)
         UPDATE netman_revision SET compacted = greatest(compacted, $1)",
    )
    .bind(row::stored(to))
    .execute(tx)
    .await
    .doing("compacting the log of changes")?;
    Ok(())
}

/// The column has no time zone, and other servers put their local time there; what matters is that
/// it moves, and never backwards (spec/policy-server.md §5.2).
pub(super) async fn touch(tx: &mut PgConnection, micros: i64) -> Result<(), StoreError> {
    sqlx::query(
        "WITH touched AS (
             UPDATE policies_info
             SET last_updated = greatest(last_updated + interval '1 microsecond',
                                         timestamp 'epoch' + $1 * interval '1 microsecond')
             RETURNING last_updated)
         UPDATE netman_revision SET explained = (SELECT last_updated FROM touched)",
    )
    .bind(micros)
    .execute(tx)
    .await
    .doing("noting the time of the update")?;
    Ok(())
}

pub(super) async fn explain(tx: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query("UPDATE netman_revision SET explained = (SELECT last_updated FROM policies_info)")
        .execute(tx)
        .await
        .doing("noting whose update it was")?;
    Ok(())
}

pub(super) async fn renew_life(tx: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query("UPDATE netman_life SET life = $1")
        .bind(Uuid::new_v4().to_string())
        .execute(&mut *tx)
        .await
        .doing("beginning another life")?;
    sqlx::query("UPDATE netman_servers SET confirmed = 0 WHERE confirmed IS NOT NULL")
        .execute(tx)
        .await
        .doing("forgetting what cells confirmed in another life")?;
    Ok(())
}

pub(super) async fn log(
    tx: &mut PgConnection,
    changes: &[(Revision, Change)],
) -> Result<(), StoreError> {
    let rows: Vec<ChangeRow> = changes.iter().map(ChangeRow::from).collect();
    let column = |value: fn(&ChangeRow) -> &Option<String>| -> Vec<Option<String>> {
        rows.iter().map(|row| value(row).clone()).collect()
    };
    let numbers = |value: fn(&ChangeRow) -> Option<i64>| -> Vec<Option<i64>> {
        rows.iter().map(value).collect()
    };
    sqlx::query(
        "INSERT INTO netman_changes (revision, kind, source, source_tag, destination,
                                     destination_tag, protocol, start_port, end_port,
                                     underlay_ip, overlay_subnet, overlay_hwaddr)
         SELECT revision, kind, source, source_tag, destination, destination_tag, protocol,
                start_port, end_port, underlay_ip, overlay_subnet, overlay_hwaddr
         FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::bigint[],
                     $7::text[], $8::bigint[], $9::bigint[], $10::text[], $11::text[], $12::text[])
              WITH ORDINALITY
              AS new (revision, kind, source, source_tag, destination, destination_tag, protocol,
                      start_port, end_port, underlay_ip, overlay_subnet, overlay_hwaddr, place)
         ORDER BY place",
    )
    .bind(rows.iter().map(|row| row.revision).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.kind.clone()).collect::<Vec<_>>())
    .bind(column(|row| &row.source))
    .bind(numbers(|row| row.source_tag))
    .bind(column(|row| &row.destination))
    .bind(numbers(|row| row.destination_tag))
    .bind(column(|row| &row.protocol))
    .bind(numbers(|row| row.start_port))
    .bind(numbers(|row| row.end_port))
    .bind(column(|row| &row.underlay_ip))
    .bind(column(|row| &row.overlay_subnet))
    .bind(column(|row| &row.overlay_hwaddr))
    .execute(tx)
    .await
    .doing("logging changes")?;
    Ok(())
}

pub(super) async fn logged(
    tx: &mut PgConnection,
    since: Revision,
) -> Result<Vec<(Revision, Change)>, StoreError> {
    let rows: Vec<ChangeRow> =
        // In the order of an index, so that none is tempted to read the whole log.
        sqlx::query_as("SELECT * FROM netman_changes WHERE revision > $1 ORDER BY revision, id")
            .bind(row::stored(since))
            .fetch_all(tx)
            .await
            .doing("reading the log of changes")?;
    rows.into_iter().map(<(Revision, Change)>::try_from).collect()
}
