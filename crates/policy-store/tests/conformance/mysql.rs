//! What only MySQL and MariaDB do.

use std::{collections::BTreeSet, time::Duration};

use policy::Policy;
use policy_store::{Filter, StoreError};
use sqlx::{Connection, Executor, MySqlConnection};
use tokio::time::{sleep, timeout};

use crate::{Database, Home, alice, everything, policies, policy, select, stories, tags};

stories!(on mysql:
    a_change_given_up_in_favour_of_another_is_made_again,
    a_name_too_long_for_its_column_is_one_requests_fault,
    as_much_as_a_request_can_carry_is_one_change
);

/// What a test waits for must come true within this.
const DEADLINE: Duration = Duration::from_secs(60);

/// Somebody locks a tag first, and then the row that all writers take first. Ours waits for the tag with
/// that row in its hands, and has less to lose.
async fn a_change_given_up_in_favour_of_another_is_made_again(database: Database) {
    let store = database.open().await;
    let Home::MySql(created) = &database.home else { panic!("a story for servers") };
    created.run("CREATE TABLE heavy (n INT)").await;
    let mut other = MySqlConnection::connect(&created.url).await.unwrap();
    let begin = "START TRANSACTION;
                 INSERT INTO heavy (n) SELECT id FROM `groups`;
                 SELECT id FROM `groups` WHERE id = 1 FOR UPDATE";
    other.execute(sqlx::raw_sql(begin)).await.unwrap();
    let creating = {
        let store = store.clone();
        tokio::spawn(async move { store.create(&policies(["web db tcp 1"]), &alice()).await })
    };
    until_somebody_waits(&created.url).await;
    other.execute("SELECT id FROM policies_info FOR UPDATE").await.expect("ours gives way");
    assert!(!creating.is_finished(), "it did not queue");
    other.execute("ROLLBACK").await.unwrap();
    let version = timeout(DEADLINE, creating).await.unwrap().unwrap().unwrap();
    assert_eq!(version.revision.0, 1);
    assert_eq!(tags(&*store).await, ["web=1", "db=2"]);
}

async fn until_somebody_waits(url: &str) {
    let mut looking = MySqlConnection::connect(url).await.unwrap();
    let waits = "SELECT EXISTS (SELECT 1 FROM information_schema.innodb_trx
                 JOIN information_schema.processlist ON id = trx_mysql_thread_id
                 WHERE db = DATABASE() AND trx_state = 'LOCK WAIT')";
    let waiting = async {
        while !sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut looking).await.unwrap() {
            // Who looks again within a tenth of a second is shown what was there before.
            sleep(Duration::from_millis(120)).await;
        }
    };
    timeout(DEADLINE, waiting).await.expect("nobody waits for the tag");
}

async fn a_name_too_long_for_its_column_is_one_requests_fault(database: Database) {
    let store = database.open().await;
    let named =
        |name: String| vec![Policy { source: name.parse().unwrap(), ..policy("x db tcp 1") }];
    let longest = "\u{fc}".repeat(255);
    let creating: Vec<_> = (0..24)
        .map(|number| {
            let store = store.clone();
            let longer = format!("{longest}{number}");
            let name = if number % 4 == 0 { longer } else { format!("web-{number}") };
            tokio::spawn(async move { store.create(&named(name), &alice()).await })
        })
        .collect();
    for (number, creating) in creating.into_iter().enumerate() {
        let created = creating.await.unwrap();
        if number % 4 == 0 {
            let refused = created.unwrap_err();
            assert!(matches!(refused, StoreError::TooLong { most: 255, .. }), "{refused:?}");
        } else {
            created.unwrap();
        }
    }
    assert_eq!(everything(&*store).await.len(), 18);

    // The longest there is is itself, and what goes beyond it is not taken for it.
    store.create(&named(longest.clone()), &alice()).await.unwrap();
    let longer = named(format!("{longest}x"));
    store.delete(&longer, &alice()).await.unwrap();
    let touching = |name: &policy::AppGuid| Filter::Touching(BTreeSet::from([name.clone()]));
    assert_eq!(select(&*store, &touching(&longer[0].source)).await.len(), 0);
    let kept = named(longest);
    assert_eq!(select(&*store, &touching(&kept[0].source)).await, kept.into_iter().collect());
}

/// A request has at most 10 MiB (spec/policy-server.md §2.3); MariaDB, as it comes, takes no packet of
/// more than 16.
async fn as_much_as_a_request_can_carry_is_one_change(database: Database) {
    let store = database.open().await;
    let source = "\u{1f98a}".repeat(255);
    let many: Vec<_> = (1..=9_000u32)
        .map(|port| Policy {
            source: source.parse().unwrap(),
            ports: port.to_string().parse().unwrap(),
            ..policy("x db tcp 1")
        })
        .collect();
    let version = store.create(&many, &alice()).await.unwrap();
    assert_eq!(version.revision.0, 1);
    assert_eq!(everything(&*store).await.len(), many.len());
    store.delete(&many, &alice()).await.unwrap();
    assert_eq!(everything(&*store).await.len(), 0);
}
