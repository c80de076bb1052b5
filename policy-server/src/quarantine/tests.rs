use std::time::Instant;

use policy::{Policy, Protocol, TagLength, Version};
use policy_store::{Actor, CellsReport, Options, StoreUrl, StoredReceipt};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use super::*;
use crate::{metrics::Metrics, receipts::Word, snapshot::Subject, snapshot::feed};

/// A database with a policy between `web` and `db`, and the files it is in.
async fn database() -> (tempfile::TempDir, Arc<dyn PolicyStore>) {
    let dir = tempfile::tempdir().unwrap();
    let url = StoreUrl::Sqlite(dir.path().join("netman.db"));
    let store = policy_store::open(&url, &Options::default()).await.unwrap();
    create(&*store, "web").await;
    (dir, store)
}

fn policy(source: &str) -> Policy {
    Policy {
        source: source.parse().unwrap(),
        destination: "db".parse().unwrap(),
        protocol: Protocol::Tcp,
        ports: "1".parse().unwrap(),
    }
}

async fn create(store: &dyn PolicyStore, source: &str) -> Version {
    store.create(&[policy(source)], &Actor::system("test")).await.unwrap()
}

async fn delete(store: &dyn PolicyStore, source: &str) -> Version {
    store.delete(&[policy(source)], &Actor::system("test")).await.unwrap()
}

async fn by_hand(dir: &tempfile::TempDir, statement: &'static str) {
    let file = SqliteConnectOptions::new().filename(dir.path().join("netman.db"));
    let mut connection = SqliteConnection::connect_with(&file).await.unwrap();
    sqlx::query(statement).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// What a server says that knows what the database holds now.
async fn said(receipts: &Receipts, store: &Arc<dyn PolicyStore>) -> Result<usize, StoreError> {
    let feed = feed::start(store.clone(), TagLength::DEFAULT, Metrics::new()).await.unwrap().0;
    say(receipts, &feed, &**store).await
}

fn word(app: &str, enforced: &Version) -> Word {
    let subject = Arc::new(Subject::Apps([app.parse().unwrap()].into()));
    Word { subject, enforced: Some(enforced.clone()), backend: None, error: None, agent: None }
}

fn written(app: &str, enforced: &Version) -> StoredReceipt {
    StoredReceipt {
        cell: "cut off".to_owned(),
        enforced: Some(enforced.clone()),
        apps: Some([app.parse().unwrap()].into()),
        backend: None,
        error: None,
        agent: None,
        age: Duration::ZERO,
    }
}

#[tokio::test]
async fn who_cannot_read_what_cells_said_elsewhere_vouches_for_nobody() {
    let (dir, store) = database().await;
    let receipts = Receipts::new(Metrics::new());
    let known = store.version().await.unwrap();
    let _held = receipts.hear("cell", None, word("web", &known));
    store.report_cells("other", CellsReport::Confirmed(known.revision)).await.unwrap();
    delete(&*store, "web").await;
    create(&*store, "another").await;
    by_hand(&dir, "ALTER TABLE netman_receipts RENAME TO away").await;
    said(&receipts, &store).await.unwrap_err();
    by_hand(&dir, "UPDATE netman_servers SET heard_at = 0 WHERE server = 'other'").await;
    assert_eq!(store.quarantined_tags().await.unwrap(), 1, "web's");
    by_hand(&dir, "ALTER TABLE away RENAME TO netman_receipts").await;
    said(&receipts, &store).await.unwrap();
    assert_eq!(store.quarantined_tags().await.unwrap(), 1, "the cell lags behind");
}

/// A cell asked about `elsewhere` and was written down. What it said next, about `web`, is lost with the
/// server it said it to; it enforces what stood then, and is cut off. Returns how many tags of `web` are
/// kept from others once a minute is over.
async fn kept_from_others(server_ends: impl AsyncFn(&dyn PolicyStore)) -> usize {
    let (dir, store) = database().await;
    let known = create(&*store, "elsewhere").await;
    store.write_receipts("first", &[written("elsewhere", &known)]).await.unwrap();
    store.report_cells("first", CellsReport::Confirmed(known.revision)).await.unwrap();
    server_ends(&*store).await;
    delete(&*store, "web").await;
    create(&*store, "another").await;
    by_hand(&dir, "UPDATE netman_servers SET heard_at = heard_at - 61000").await;
    by_hand(
        &dir,
        "UPDATE netman_receipts SET said_at = said_at - 61000, heard_at = heard_at - 61000",
    )
    .await;
    let next = Receipts::new(Metrics::new());
    let _held = next.hear("cell", None, word("another", &store.version().await.unwrap()));
    said(&next, &store).await.unwrap();
    store.quarantined_tags().await.unwrap()
}

#[tokio::test]
async fn a_cell_that_is_cut_off_keeps_the_tags_it_may_know_after_its_server_was_killed() {
    let killed = kept_from_others(async |_| {});
    assert_eq!(killed.await, 1);
    let ended = kept_from_others(async |store: &dyn PolicyStore| {
        let known = store.version().await.unwrap();
        store.write_receipts("", &[written("elsewhere", &known)]).await.unwrap();
        store.take_leave("first").await.unwrap();
    });
    assert_eq!(ended.await, 0, "a server that takes leave lost nothing");
    let killed_next = kept_from_others(async |store: &dyn PolicyStore| {
        let known = store.version().await.unwrap();
        store.write_receipts("", &[written("elsewhere", &known)]).await.unwrap();
        store.take_leave("first").await.unwrap();
        store.report_cells("second", CellsReport::Silent).await.unwrap();
    });
    assert_eq!(killed_next.await, 1, "it may have spoken to the second, which wrote nothing of it");
}

#[tokio::test]
async fn tags_are_free_when_the_cell_speaks_again_or_is_forgotten() {
    for speaks in [true, false] {
        let (dir, store) = database().await;
        let known = create(&*store, "elsewhere").await;
        store.write_receipts("killed", &[written("elsewhere", &known)]).await.unwrap();
        store.report_cells("killed", CellsReport::Confirmed(known.revision)).await.unwrap();
        delete(&*store, "web").await;
        create(&*store, "another").await;
        by_hand(&dir, "UPDATE netman_servers SET heard_at = heard_at - 61000").await;
        by_hand(&dir, "UPDATE netman_receipts SET heard_at = heard_at - 61000").await;
        let receipts = Receipts::new(Metrics::new());
        let _other = receipts.hear("other", None, word("another", &store.version().await.unwrap()));
        said(&receipts, &store).await.unwrap();
        assert_eq!(store.quarantined_tags().await.unwrap(), 1);
        let _back = speaks.then(|| receipts.hear("cut off", None, word("elsewhere", &known)));
        if !speaks {
            by_hand(&dir, "UPDATE netman_receipts SET said_at = 0, heard_at = 0").await;
            by_hand(&dir, "UPDATE netman_servers SET heard_at = 0 WHERE server = 'killed'").await;
        }
        is_free(&receipts, &store).await;
    }
}

/// Says what it says until no tag is quarantined.
async fn is_free(receipts: &Receipts, store: &Arc<dyn PolicyStore>) {
    let began = Instant::now();
    while store.quarantined_tags().await.unwrap() > 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "the tag is still quarantined");
        said(receipts, store).await.unwrap();
    }
}
