//! Table `netman_receipts` (design §2.3).

use std::time::Duration;

use sqlx::PgConnection;

use crate::{
    StoreError,
    error::Doing,
    row::{HeardRow, ReceiptRow},
};

/// Rows are written in the order of their keys, so that servers that write at the same time wait for each
/// other and not in a circle. A word from the future was stored before the clock was set back, so any
/// other is later. One server's words come in their order, and when each was said is only known as well
/// as it came: the next is later, too, however long the one before was under way. Nobody is no server.
pub(super) async fn put(
    connection: &mut PgConnection,
    server: &str,
    receipts: &[ReceiptRow],
) -> Result<(), StoreError> {
    let texts = |value: fn(&ReceiptRow) -> &Option<String>| -> Vec<Option<String>> {
        receipts.iter().map(|row| value(row).clone()).collect()
    };
    sqlx::query(
        "INSERT INTO netman_receipts AS known
             (cell, server, life, revision, apps, backend, error, agent, said_at, heard_at)
         SELECT cell, $1, life, revision, apps, backend, error, agent,
                clock_timestamp() - said_ago * interval '1 millisecond', clock_timestamp()
         FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[],
                     $8::text[], $9::bigint[])
              AS new (cell, life, revision, apps, backend, error, agent, said_ago)
         ORDER BY cell
         ON CONFLICT (cell) DO UPDATE SET
             server = excluded.server, life = excluded.life, revision = excluded.revision,
             apps = excluded.apps, backend = excluded.backend, error = excluded.error,
             agent = excluded.agent, said_at = excluded.said_at, heard_at = excluded.heard_at
         WHERE known.said_at <= excluded.said_at OR known.said_at > clock_timestamp()
             OR known.server = excluded.server AND excluded.server <> ''",
    )
    .bind(server)
    .bind(receipts.iter().map(|row| row.cell.clone()).collect::<Vec<_>>())
    .bind(texts(|row| &row.life))
    .bind(receipts.iter().map(|row| row.revision).collect::<Vec<_>>())
    .bind(texts(|row| &row.apps))
    .bind(texts(|row| &row.backend))
    .bind(texts(|row| &row.error))
    .bind(texts(|row| &row.agent))
    .bind(receipts.iter().map(|row| row.said_ago).collect::<Vec<_>>())
    .execute(connection)
    .await
    .doing("writing what cells said")?;
    Ok(())
}

pub(super) async fn list(connection: &mut PgConnection) -> Result<Vec<HeardRow>, StoreError> {
    sqlx::query_as(
        "SELECT cell, server, life, revision, apps, backend, error, agent,
                (extract(epoch FROM clock_timestamp() - said_at) * 1000)::bigint AS said_ago,
                (extract(epoch FROM clock_timestamp()
                     - greatest(netman_receipts.heard_at, netman_servers.heard_at)) * 1000)::bigint
                    AS silent_for
         FROM netman_receipts LEFT JOIN netman_servers USING (server) ORDER BY cell",
    )
    .fetch_all(connection)
    .await
    .doing("reading what cells said")
}

pub(super) async fn forget(
    connection: &mut PgConnection,
    silent_for: Duration,
) -> Result<u64, StoreError> {
    let forgotten = sqlx::query(
        "DELETE FROM netman_receipts AS receipt
         WHERE heard_at + $1 * interval '1 millisecond' < clock_timestamp()
           AND NOT EXISTS (SELECT 1 FROM netman_servers AS alive
                           WHERE alive.server = receipt.server
                             AND alive.heard_at + $1 * interval '1 millisecond'
                                 >= clock_timestamp())",
    )
    .bind(i64::try_from(silent_for.as_millis()).unwrap_or(i64::MAX))
    .execute(connection)
    .await
    .doing("forgetting what cells said to servers that are gone")?;
    Ok(forgotten.rows_affected())
}
