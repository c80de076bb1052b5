use std::{env, error::Error, time::Duration};

use policy_store::{Schema, StoreError, StoreUrl, migrate};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::{open, options, servers::Created, works};

/// What a test waits for must come true within this.
const DEADLINE: Duration = Duration::from_secs(60);

async fn administer(statement: &str) {
    let administrator = env::var("NETMAN_TEST_POSTGRES").unwrap();
    let mut connection = PgConnection::connect(&administrator).await.unwrap();
    connection.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await.unwrap();
}

/// A database that existed, with its URL and its name.
async fn missing() -> (Created, StoreUrl, String) {
    let database = Created::on_postgres().await;
    let url: StoreUrl = database.url.parse().unwrap();
    let name = database.url.rsplit_once('/').unwrap().1.to_owned();
    administer(&format!("DROP DATABASE {name}")).await;
    (database, url, name)
}

#[tokio::test]
async fn a_database_that_is_made_later_is_waited_for() {
    let (database, url, name) = missing().await;
    let migrating = tokio::spawn({
        let url = url.clone();
        async move { migrate(&url, &options(Schema::Beside), DEADLINE).await }
    });
    let refused = policy_store::open(&url, &options(Schema::Whole)).await;
    assert!(matches!(refused.err().unwrap(), StoreError::Connect(_)), "it is not there");
    assert!(!migrating.is_finished());

    administer(&format!("CREATE DATABASE {name}")).await;
    migrating.await.unwrap().unwrap();
    let store = open(&database, Schema::Beside).await;
    works(&*store).await;
    let version = store.version().await.unwrap();
    migrate(&url, &options(Schema::Whole), DEADLINE).await.unwrap();
    assert_eq!(store.version().await.unwrap(), version, "once is enough");
}

#[tokio::test]
async fn a_migration_gives_up_in_the_end_and_tells_why() {
    let (database, url, name) = missing().await;
    let given_up = migrate(&url, &options(Schema::Whole), Duration::from_secs(3)).await;
    let error = given_up.unwrap_err();
    assert!(matches!(error, StoreError::NotMigratedInTime { .. }));
    let mut cause: &dyn Error = &error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    assert!(cause.to_string().contains("does not exist"), "{cause}");
    administer(&format!("CREATE DATABASE {name}")).await;
    drop(database);
}
