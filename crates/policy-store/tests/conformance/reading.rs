use std::time::Duration;

use policy_store::CellsReport;
use sqlx::{Connection, PgConnection};
use tokio::time::{sleep, timeout};

use crate::{Database, Home, alice, policies, policy, stories};

stories!(on postgres: a_change_reads_little_however_much_there_is);

/// A statement is planned anew a few times before the planner settles on one way for all values.
const ROUNDS: i64 = 8;

/// 5,000 apps, of which each may reach the next four.
const FILL: &str = "
    UPDATE groups SET guid = 'app-' || id, type = 'app' WHERE id <= 5000;
    INSERT INTO destinations (group_id, protocol, start_port, end_port, port)
    SELECT id, 'tcp', 8080, 8080, 8080 FROM groups WHERE guid IS NOT NULL;
    INSERT INTO policies (group_id, destination_id)
    SELECT source.id, destinations.id FROM groups source JOIN destinations
        ON destinations.group_id BETWEEN source.id + 1 AND source.id + 4
    WHERE source.guid IS NOT NULL;";

/// What the planner may believe: nothing, that all tags are nobody's, or that none is.
const BELIEFS: [&str; 3] = [
    "",
    "ANALYZE;",
    "UPDATE groups SET guid = 'app-' || id, type = 'app'; ANALYZE;
     UPDATE groups SET guid = NULL, type = NULL;",
];

/// How many rows of the tables that grow have been read, by whatever way.
const READ: &str = "
    SELECT sum(seq_tup_read + idx_tup_fetch)::bigint FROM pg_stat_user_tables
    WHERE relname IN ('groups', 'destinations', 'policies')";

/// The planner has been wrong about tables that were just filled or emptied.
async fn a_change_reads_little_however_much_there_is(database: Database) {
    for belief in BELIEFS {
        let read = read_for_a_change(&database.another().await, belief).await;
        assert!((1..2000 * ROUNDS).contains(&read), "{read} rows were read after {belief:?}");
    }
}

async fn read_for_a_change(database: &Database, belief: &str) -> i64 {
    database.open_with_tags_of(2).await.close().await;
    database.by_hand(&format!("{belief} {FILL}")).await;
    let Home::Postgres(created) = &database.home else { panic!("a story for PostgreSQL") };
    let mut looking = PgConnection::connect(&created.url).await.unwrap();
    until_told(&mut looking, "policies", 4 * 5000 - 10).await;
    let before: i64 = sqlx::query_scalar(READ).fetch_one(&mut looking).await.unwrap();

    let store = database.open_with_tags_of(2).await;
    let mut new = policies(["app-1 new-1 tcp 1", "new-1 app-2 tcp 8080", "app-3 app-9 tcp 1"]);
    new.extend((0..64).map(|one| policy(&format!("new-{one} another-{one} tcp 1"))));
    for _ in 0..ROUNDS {
        store.create(&new, &alice()).await.unwrap();
        store.delete(&new, &alice()).await.unwrap();
    }
    store.report_cells("server", CellsReport::Silent).await.unwrap();
    store.close().await;
    until_told(&mut looking, "netman_audit", 2 * ROUNDS).await;
    let after: i64 = sqlx::query_scalar(READ).fetch_one(&mut looking).await.unwrap();
    after - before
}

/// Waits until what was done to a table is counted, which happens after a while or at a session's end.
async fn until_told(looking: &mut PgConnection, table: &str, inserted: i64) {
    let told = "SELECT coalesce((SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = $1), 0)";
    let waiting = async {
        loop {
            let told: i64 =
                sqlx::query_scalar(told).bind(table).fetch_one(&mut *looking).await.unwrap();
            if told >= inserted {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(60), waiting).await.expect("nothing was counted");
}
