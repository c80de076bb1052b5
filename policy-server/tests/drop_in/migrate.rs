//! `migrate-db` (spec/policy-server.md §9.2, §14.1).

use std::ffi::OsStr;

use serde_json::json;

use crate::{
    database::{Database, Kind},
    deployment::Deployment,
    program::Program,
};

crate::stories! {
    it_makes_the_tables_and_rows_of_the_existing_system,
    once_more_changes_nothing,
    it_waits_for_a_database_that_appears_later,
    it_gives_up_in_time,
    the_word_does_the_same_as_the_name,
}

/// Rows that say which migrations have run, and rows of tags.
async fn rows(database: &Database) -> (i64, i64) {
    // MySQL knows the word otherwise.
    let groups = match database.kind {
        Kind::Postgres => "SELECT count(*) FROM groups",
        Kind::MySql => "SELECT count(*) FROM `groups`",
    };
    let migrations = "SELECT count(*) FROM gorp_migrations";
    (database.number(migrations).await, database.number(groups).await)
}

async fn it_makes_the_tables_and_rows_of_the_existing_system(kind: Kind) {
    for (tag_length, tags) in [(1, 255), (2, 65_535)] {
        let deployment = Deployment::on(Database::new(kind).await).await;
        let ended = deployment.run("migrate-db", json!({"tag_length": tag_length})).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(deployment.database.tables().await, 4);
        assert_eq!(rows(&deployment.database).await, (88, tags));
    }
}

async fn once_more_changes_nothing(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    deployment.external(json!({})).await.create(&["web db 8080"]).await;
    let ended = deployment.run("migrate-db", json!({})).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(rows(&deployment.database).await, (88, 255));
    let server = deployment.external(json!({})).await;
    assert_eq!((server.count().await, server.tags().await.len()), (1, 2));
}

async fn it_waits_for_a_database_that_appears_later(kind: Kind) {
    let deployment = Deployment::on(Database::planned(kind)).await;
    let file = deployment.file(&deployment.config());
    let mut program = Program::configured("migrate-db", &file);
    program.says("Could not migrate; trying again").await;
    deployment.database.create().await;
    let ended = program.end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(rows(&deployment.database).await, (88, 255));
}

async fn it_gives_up_in_time(kind: Kind) {
    let deployment = Deployment::on(Database::planned(kind)).await;
    let ended = deployment.run("migrate-db", json!({"database_migration_timeout": 1})).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let told =
        "fatal error occured, migrations and groups table population timed out after 1 seconds";
    assert_eq!(ended.stdout.lines().last(), Some(told));
}

async fn the_word_does_the_same_as_the_name(kind: Kind) {
    let deployment = Deployment::on(Database::new(kind).await).await;
    let file = deployment.file(&deployment.config());
    let words = [OsStr::new("migrate"), OsStr::new("-config-file"), file.as_os_str()];
    let ended = Program::start("policy-server", &words).end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(rows(&deployment.database).await, (88, 255));
}

/// The servers leave that to `migrate-db`.
#[tokio::test]
async fn no_server_makes_the_tables() {
    let deployment = Deployment::on(Database::new(Kind::Postgres).await).await;
    let ended = deployment.run("policy-server", json!({})).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(deployment.database.tables().await, 0);
}
