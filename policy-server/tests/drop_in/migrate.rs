//! `migrate-db` (spec/policy-server.md §9.2, §14.1).

use std::ffi::OsStr;

use serde_json::{Value, json};

use crate::{
    database::{Database, Kind},
    deployment::Deployment,
    program::Program,
    relay::Relay,
};

crate::stories! {
    it_makes_the_tables_and_rows_of_the_existing_system,
    once_more_changes_nothing,
    it_waits_for_a_database_that_appears_later,
    it_gives_up_in_time,
    it_says_at_once_what_it_waits_for,
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

/// Its own time may be over before that of the database.
async fn it_says_at_once_what_it_waits_for(kind: Kind) {
    let waits_for = async |database: &Database, changes: Value, told: &[&str]| {
        let deployment = Deployment::on(Database::planned(kind)).await;
        let mut config = deployment.config_with(json!({"database_migration_timeout": 2}));
        config["database"] = database.config();
        config["database"]["timeout"] = 60.into();
        for (key, value) in changes.as_object().unwrap() {
            config["database"][key] = value.clone();
        }
        let ended = Program::configured("migrate-db", &deployment.file(&config)).end().await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        for text in told {
            assert!(ended.stdout.contains(text), "no {text:?} in {ended:?}");
        }
    };
    let database = Database::new(kind).await;
    let refusing = json!({"host": "127.0.0.1", "port": 1});
    let told =
        ["The database is not there yet; trying again", "Connection refused", "127.0.0.1:1/"];
    waits_for(&database, refusing, &told).await;

    let relay = Relay::to(&database.config()).await;
    relay.drop_everything();
    let silent = json!({"host": relay.config["host"], "port": relay.config["port"]});
    waits_for(&database, silent, &["The database has not answered yet; waiting"]).await;

    // As another migrate-db, of theirs, leaves it while it works.
    let _working = database
        .run(match kind {
            Kind::Postgres => {
                "CREATE TABLE gorp_lock (lock TEXT PRIMARY KEY, acquired_at TIMESTAMPTZ);
                 INSERT INTO gorp_lock VALUES ('sql-migrate', now())"
            }
            Kind::MySql => {
                "CREATE TABLE gorp_lock (`lock` VARCHAR(255) PRIMARY KEY, acquired_at DATETIME);
                 INSERT INTO gorp_lock VALUES ('sql-migrate', NOW())"
            }
        })
        .await;
    waits_for(&database, json!({}), &["that another migrate-db is at work"]).await;
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
