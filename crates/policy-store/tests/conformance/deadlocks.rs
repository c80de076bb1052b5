use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection};
use tokio::time::{sleep, timeout};

use crate::{Database, Home, alice, policies, stories, tags};

stories!(on postgres: a_change_given_up_in_favour_of_another_is_made_again);

/// How often a deadlock is provoked, at most, until the other side wins it.
const ROUNDS: u32 = 10;

/// Somebody locks a tag first, and then the row that all writers take first. Ours waits for the tag with
/// that row in its hands.
async fn a_change_given_up_in_favour_of_another_is_made_again(database: Database) {
    let store = database.open().await;
    let Home::Postgres(created) = &database.home else { panic!("a story for servers") };
    let mut other = PgConnection::connect(&created.url).await.unwrap();
    // Whoever looks for deadlocks first is the one that gives way.
    other.execute("SET deadlock_timeout = '1min'").await.unwrap();

    for round in 1..=ROUNDS {
        other.execute("BEGIN").await.unwrap();
        other.execute("SELECT id FROM groups WHERE id = 1 FOR UPDATE").await.unwrap();
        let creating = {
            let store = store.clone();
            tokio::spawn(async move { store.create(&policies(["web db tcp 1"]), &alice()).await })
        };
        until_somebody_waits(&created.url).await;
        let won = other.execute("SELECT id FROM policies_info FOR UPDATE").await.is_ok();
        assert!(!(won && creating.is_finished()), "it did not queue");
        other.execute("ROLLBACK").await.unwrap();
        let version = timeout(Duration::from_secs(60), creating).await.unwrap().unwrap().unwrap();
        assert_eq!(version.revision.0, u64::from(2 * round - 1));
        if won {
            assert_eq!(tags(&*store).await, ["web=1", "db=2"]);
            return;
        }
        store.delete(&policies(["web db tcp 1"]), &alice()).await.unwrap();
    }
    panic!("the deadlock was never ours to lose");
}

async fn until_somebody_waits(url: &str) {
    let mut looking = PgConnection::connect(url).await.unwrap();
    let waits = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock')";
    let waiting = async {
        while !sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut looking).await.unwrap() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(60), waiting).await.expect("nobody waits for the tag");
}
