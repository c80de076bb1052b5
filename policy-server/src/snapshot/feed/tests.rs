use policy::{Policy, Protocol};
use policy_store::{Actor, Options, StoreUrl};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use super::*;
use crate::snapshot::{Standing, Subject, Topic};

fn policy(port: u16) -> Policy {
    Policy {
        source: "web".parse().unwrap(),
        destination: "db".parse().unwrap(),
        protocol: Protocol::Tcp,
        ports: port.to_string().parse().unwrap(),
    }
}

async fn store(dir: &tempfile::TempDir) -> Arc<dyn PolicyStore> {
    let url = StoreUrl::Sqlite(dir.path().join("netman.db"));
    let options = Options { log_kept: 1000, ..Options::default() };
    policy_store::open(&url, &options).await.unwrap()
}

#[tokio::test]
async fn a_server_that_was_away_for_long_takes_the_whole_state() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let (feed, mut feeder) =
        start(store.clone(), TagLength::DEFAULT, Metrics::new()).await.unwrap();
    let mut last = store.create(&[policy(1)], &Actor::system("test")).await.unwrap();
    for _ in 0..600 {
        store.delete(&[policy(2)], &Actor::system("test")).await.unwrap();
        store.create(&[policy(2)], &Actor::system("test")).await.unwrap();
        last = store.delete(&[policy(2)], &Actor::system("test")).await.unwrap();
    }
    assert_eq!(feed.snapshot().version().revision.0, 0, "nobody feeds it yet");
    feeder.look(false).await.unwrap();
    let snapshot = feed.snapshot();
    assert_eq!(*snapshot.version(), last);
    assert_eq!(snapshot.policies_of(&Subject::Everything).len(), 1);
}

#[tokio::test]
async fn a_log_it_cannot_read_does_not_keep_it_from_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let (feed, mut feeder) =
        start(store.clone(), TagLength::DEFAULT, Metrics::new()).await.unwrap();
    store.create(&[policy(1)], &Actor::system("test")).await.unwrap();
    let file = SqliteConnectOptions::new().filename(dir.path().join("netman.db"));
    let mut newer = SqliteConnection::connect_with(&file).await.unwrap();
    for statement in [
        "UPDATE netman_revision SET revision = 2",
        "INSERT INTO netman_changes (revision, kind) VALUES (2, 'of-tomorrow')",
    ] {
        sqlx::query(statement).execute(&mut newer).await.unwrap();
    }
    feeder.look(false).await.unwrap();
    let snapshot = feed.snapshot();
    assert_eq!(snapshot.version().revision.0, 2);
    assert_eq!(snapshot.policies_of(&Subject::Everything).len(), 1);
}

#[tokio::test]
async fn what_an_older_syncer_does_is_found_by_comparing() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let (feed, mut feeder) =
        start(store.clone(), TagLength::DEFAULT, Metrics::new()).await.unwrap();
    let file = SqliteConnectOptions::new().filename(dir.path().join("netman.db"));
    let mut older = SqliteConnection::connect_with(&file).await.unwrap();
    let insert = "INSERT INTO security_groups (guid, name) VALUES ('sg-1', 'dns')";
    sqlx::query(insert).execute(&mut older).await.unwrap();
    feeder.look(false).await.unwrap();
    assert_eq!(feed.snapshot().security_groups_version().revision.0, 0);
    feeder.look(true).await.unwrap();
    let snapshot = feed.snapshot();
    assert_eq!(snapshot.security_groups_version().revision.0, 1);
    assert_eq!(snapshot.security_groups().unwrap()[0].group.guid, "sg-1");
    feeder.look(true).await.unwrap();
    assert_eq!(*feed.snapshot().version(), *snapshot.version(), "once is enough");
}

#[tokio::test]
async fn without_its_database_it_keeps_the_last_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    store.create(&[policy(1)], &Actor::system("test")).await.unwrap();
    let (feed, mut feeder) =
        start(store.clone(), TagLength::DEFAULT, Metrics::new()).await.unwrap();
    store.close().await;
    assert!(feeder.look(false).await.is_err());
    assert_eq!(feed.snapshot().policies_of(&Subject::Everything).len(), 1);
}

/// A cell has what the database has not, for which another life is to begin, and that cannot be written.
#[tokio::test]
async fn a_database_that_cannot_be_written_is_read_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let actor = Actor::system("test");
    store.create(&[policy(1)], &actor).await.unwrap();
    let (feed, feeder) = start(store.clone(), TagLength::DEFAULT, Metrics::new()).await.unwrap();
    let held = feed.snapshot().version().clone();
    let file = SqliteConnectOptions::new().filename(dir.path().join("netman.db"));
    let mut by_hand = SqliteConnection::connect_with(&file).await.unwrap();
    let full =
        "CREATE TRIGGER full BEFORE UPDATE ON netman_life BEGIN SELECT RAISE(ABORT, 'full'); END";
    sqlx::query(full).execute(&mut by_hand).await.unwrap();
    let feeding = tokio::spawn(feeder.run());
    let ahead = Version { revision: Revision(held.revision.0 + 9), ..held.clone() };
    assert_eq!(feed.examine(&ahead).await, Claim::Refuted, "no other life has begun");

    let changed = store.create(&[policy(2)], &actor).await.unwrap();
    feed.reaches(&changed).await.unwrap();
    assert_eq!(changed.life, held.life);
    sqlx::query("DROP TRIGGER full").execute(&mut by_hand).await.unwrap();
    let mut snapshots = feed.subscribe();
    let renewed = snapshots.wait_for(|snapshot| snapshot.version().life != held.life);
    timeout(PATIENCE, renewed).await.expect("once it can be written").unwrap();
    feeding.abort();
}

/// Who writes as the existing system does: no revision, no log, another time of the last update.
async fn write_as_of_old(dir: &tempfile::TempDir, statements: &[&'static str]) {
    let file = SqliteConnectOptions::new().filename(dir.path().join("netman.db"));
    let mut older = SqliteConnection::connect_with(&file).await.unwrap();
    for statement in statements {
        sqlx::query(*statement).execute(&mut older).await.unwrap();
    }
    let touch = "UPDATE policies_info SET last_updated = last_updated + 1000";
    sqlx::query(touch).execute(&mut older).await.unwrap();
    older.close().await.unwrap();
}

#[tokio::test]
async fn a_change_of_an_older_server_concerns_those_it_concerns() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let other = Policy { source: "other".parse().unwrap(), ..policy(1) };
    store.create(&[policy(1), other], &Actor::system("test")).await.unwrap();
    let (feed, mut feeder) =
        start(store.clone(), TagLength::DEFAULT, Metrics::new()).await.unwrap();
    let about = |app: &str| Subject::Apps([app.parse().unwrap()].into());
    let topic = Topic::Policies(about("web").into());
    let known = feed.snapshot().version().clone();

    write_as_of_old(&dir, &[]).await;
    feeder.look(false).await.unwrap();
    let next = feed.snapshot();
    assert!(next.version() != &known, "it has its revision");
    assert_eq!(next.standing(&known, &topic), Standing::Current, "nothing is different");

    let gone =
        "DELETE FROM policies WHERE group_id = (SELECT id FROM \"groups\" WHERE guid = 'web')";
    write_as_of_old(&dir, &[gone]).await;
    feeder.look(false).await.unwrap();
    let next = feed.snapshot();
    assert_eq!(next.standing(&known, &topic), Standing::Outdated);
    assert_eq!(next.policies_of(&about("web")), []);
    let unconcerned = Topic::Policies(about("other").into());
    assert_eq!(next.standing(&known, &unconcerned), Standing::Current);
}

/// A change without a revision is given one before anybody is told of it: else those who are told
/// elsewhere that nothing has changed since would never hear of it.
#[tokio::test]
async fn what_has_no_revision_yet_is_not_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let before = store.create(&[policy(1)], &Actor::system("test")).await.unwrap();
    write_as_of_old(&dir, &["DELETE FROM policies"]).await;
    let (feed, _) = start(store, TagLength::DEFAULT, Metrics::new()).await.unwrap();
    let snapshot = feed.snapshot();
    assert_eq!(snapshot.policies_of(&Subject::Everything), []);
    assert!(snapshot.version().revision > before.revision);
    assert_eq!(
        snapshot.standing(&before, &Topic::Policies(Subject::Everything.into())),
        Standing::Outdated
    );
}

#[tokio::test]
async fn a_server_that_starts_remembers_what_the_log_tells() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let actor = Actor::system("test");
    let first = store.create(&[policy(1)], &actor).await.unwrap();
    store.delete(&[policy(1)], &actor).await.unwrap();
    let third = store.create(&[policy(2)], &actor).await.unwrap();
    store
        .create(&[Policy { source: "other".parse().unwrap(), ..policy(3) }], &actor)
        .await
        .unwrap();
    let (feed, _) = start(store, TagLength::DEFAULT, Metrics::new()).await.unwrap();
    let snapshot = feed.snapshot();
    let web: std::collections::BTreeSet<_> = ["web".parse().unwrap()].into();
    let topic = Topic::Policies(Subject::Apps(web.clone()).into());
    assert_eq!(snapshot.standing(&third, &topic), Standing::Current);
    let delta = snapshot.delta(&web, &first, None).unwrap();
    let ports = |entries: &[Arc<crate::snapshot::Entry>]| -> Vec<_> {
        entries.iter().map(|entry| (entry.tagged.policy.ports.start(), entry.since.0)).collect()
    };
    assert_eq!(
        (delta.total, ports(&delta.removed), ports(&delta.added)),
        (1, vec![(1, 2)], vec![(2, 3)])
    );
    assert_eq!(snapshot.version_for(&Topic::Leases, None).revision.0, 0);
}

#[tokio::test]
async fn who_slept_over_what_the_log_keeps_takes_the_whole_once() {
    let dir = tempfile::tempdir().unwrap();
    let url = StoreUrl::Sqlite(dir.path().join("netman.db"));
    let options = Options { log_kept: 16, ..Options::default() };
    let store = policy_store::open(&url, &options).await.unwrap();
    let actor = Actor::system("test");
    let asleep = store.create(&[policy(1)], &actor).await.unwrap();
    for port in 2..=40 {
        let other = Policy {
            source: "other".parse().unwrap(),
            destination: "b".parse().unwrap(),
            ..policy(port)
        };
        store.create(&[other], &actor).await.unwrap();
    }
    let (feed, mut feeder) =
        start(store.clone(), TagLength::DEFAULT, Metrics::new()).await.unwrap();
    let web: std::collections::BTreeSet<_> = ["web".parse().unwrap()].into();
    let topic = Topic::Policies(Subject::Apps(web.clone()).into());
    let snapshot = feed.snapshot();
    assert_eq!(snapshot.standing(&asleep, &topic), Standing::Outdated, "for all one knows");
    assert!(snapshot.delta(&web, &asleep, None).is_none());
    let awake = snapshot.version_for(&topic, Some(&asleep));
    assert_eq!(snapshot.standing(&awake, &topic), Standing::Current);
    store.create(&[policy(2)], &actor).await.unwrap();
    feeder.look(false).await.unwrap();
    assert_eq!(feed.snapshot().delta(&web, &awake, None).unwrap().added.len(), 1);
}

#[tokio::test]
async fn who_changes_policies_faster_than_they_are_read_is_not_waited_for_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let (feed, mut feeder) =
        start(store.clone(), TagLength::DEFAULT, Metrics::new()).await.unwrap();
    let restless = "CREATE TRIGGER restless AFTER UPDATE OF explained ON netman_revision BEGIN
        UPDATE policies_info SET last_updated = last_updated + 1000; END";
    write_as_of_old(&dir, &[restless]).await;
    let whole = feeder::whole_within(Duration::from_millis(50), &*store).await;
    assert!(matches!(whole, Err(StoreError::TooSlow { .. })), "{whole:?}");

    write_as_of_old(&dir, &["DROP TRIGGER restless"]).await;
    feeder.look(false).await.unwrap();
    assert_eq!(*feed.snapshot().version(), store.version().await.unwrap());
}
