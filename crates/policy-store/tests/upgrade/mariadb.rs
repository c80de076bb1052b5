//! What is different about MySQL and MariaDB: a schema changes step by step, so a change that is cut off
//! leaves it in between, and texts compare as the database says.

use std::{future::poll_fn, pin::pin, task::Poll};

use policy::{AppGuid, Policy};
use policy_store::{Actor, Filter, PolicyStore, Schema, StoreError, StoreUrl};

use crate::{
    FROM_2016, Kind, listed, migrations_are_recorded, open, options, recorded, tags, works,
};

/// MySQL reads over the references of 2016, so it has no keys that demand anything.
#[tokio::test]
async fn a_database_of_2016_without_its_references_is_taken_over() {
    let database = recorded(Kind::MySql, include_str!("mysql/2016_without_references.sql")).await;
    // Such a database can hold a policy to nowhere.
    database.run("INSERT INTO policies (group_id, destination_id) VALUES (1, 99)").await;
    let store = open(&database, Schema::Whole).await;
    assert_eq!(listed(&*store).await, FROM_2016);
    works(&*store).await;
    migrations_are_recorded(&database).await;
    let keys = "SELECT count(*) FROM information_schema.referential_constraints
                WHERE constraint_schema = DATABASE()
                  AND constraint_name = 'policies_destination_id_fkey'";
    assert_eq!(database.count(keys).await, 1);
}

/// The last form differs from that of an older time in no table.
#[tokio::test]
async fn a_table_of_an_older_time_gets_the_types_of_the_last() {
    let database = recorded(Kind::MySql, include_str!("mysql/2024.sql")).await;
    database
        .run(
            "ALTER TABLE policies_info MODIFY last_updated TIMESTAMP NOT NULL DEFAULT NOW();
             ALTER TABLE security_groups MODIFY id INT NOT NULL AUTO_INCREMENT, MODIFY rules TEXT;
             DELETE FROM gorp_migrations WHERE id IN ('75', '79')",
        )
        .await;
    let store = open(&database, Schema::Whole).await;
    works(&*store).await;
    migrations_are_recorded(&database).await;
    let types = "SELECT count(*) FROM information_schema.columns
                 WHERE table_schema = DATABASE()
                   AND (table_name, column_name, column_type) IN (
                       ('policies_info', 'last_updated', 'timestamp(6)'),
                       ('security_groups', 'rules', 'mediumtext'))";
    assert_eq!(database.count(types).await, 2);
    assert_eq!(store.security_groups().await.unwrap().unwrap().len(), 2);
}

/// Dropped after a number of polls that differs from round to round, and then taken over by another.
#[tokio::test]
async fn a_takeover_that_is_cut_off_is_finished_by_the_next() {
    for polls in (1..120).step_by(7) {
        let database = recorded(Kind::MySql, include_str!("mysql/2016.sql")).await;
        let url: StoreUrl = database.url.parse().unwrap();
        let options = options(Schema::Whole);
        {
            let mut opening = pin!(policy_store::open(&url, &options));
            let mut polled = 0;
            poll_fn(|context| {
                polled += 1;
                if opening.as_mut().poll(context).is_ready() || polled > polls {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        }
        // The lock the first may have left is not waited for here.
        database.run("DROP TABLE IF EXISTS gorp_lock").await;
        let store = open(&database, Schema::Whole).await;
        assert_eq!(listed(&*store).await, FROM_2016, "cut off after {polls}");
        works(&*store).await;
        migrations_are_recorded(&database).await;
    }
}

fn policy(source: &str) -> Policy {
    Policy {
        source: source.parse().unwrap(),
        destination: "db".parse().unwrap(),
        protocol: policy::Protocol::Tcp,
        ports: "1".parse().unwrap(),
    }
}

async fn of(store: &dyn PolicyStore, source: &str) -> usize {
    let sources: AppGuid = source.parse().unwrap();
    let only = Filter::Between { sources: Some([sources].into()), destinations: None };
    store.policies(&only).await.unwrap().len()
}

/// For latin1 as it is set up by default, `web` and `Web` are the same, and so are `web` and `web `.
#[tokio::test]
async fn a_name_is_never_taken_for_another_whatever_the_collation() {
    let database = recorded(Kind::MySql, include_str!("mysql/2024.sql")).await;
    let store = open(&database, Schema::Beside).await;
    let actor = Actor::system("test");
    let before = (listed(&*store).await, tags(&*store).await);
    assert_eq!(of(&*store, "web").await, 2);
    for like_web in ["Web", "web ", "WEB"] {
        assert_eq!(of(&*store, like_web).await, 0, "{like_web:?} is nobody");
        let none = store.delete(&[policy(like_web), policy("WeB")], &actor).await.unwrap();
        assert_eq!(none, store.version().await.unwrap());
        let refused = store.create(&[policy(like_web)], &actor).await.unwrap_err();
        assert!(matches!(refused, StoreError::Indistinct { .. }), "{refused:?}");
    }
    // Nor can a name be kept whose characters the column does not have.
    store.create(&[policy("\u{65e5}\u{672c}")], &actor).await.unwrap_err();
    assert_eq!(of(&*store, "\u{65e5}\u{672c}").await, 0);
    assert_eq!((listed(&*store).await, tags(&*store).await), before);
    store.create(&[policy("\u{fc}ber")], &actor).await.unwrap();
    assert_eq!(of(&*store, "\u{fc}ber").await, 1);
}
