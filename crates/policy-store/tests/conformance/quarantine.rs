use std::time::Duration;

use policy::Revision;
use policy_store::{CellsReport, Options, PolicyStore};

use crate::{Database, alice, one_byte, policies, stories, tags};

stories! {
    where_no_cell_reports_tags_are_free_at_once,
    a_tag_is_free_when_every_cell_has_confirmed,
    the_last_owner_gets_its_tag_back_at_once,
    the_slowest_of_several_servers_decides,
    quarantined_tags_are_not_given_when_all_others_are,
    a_store_told_so_quarantines_nothing,
    a_server_that_went_without_leave_is_remembered_but_not_waited_for,
}

fn confirmed(revision: u64) -> CellsReport {
    CellsReport::Confirmed(Revision(revision))
}

async fn report(store: &dyn PolicyStore, server: &str, report: CellsReport) -> usize {
    store.report_cells(server, report).await.unwrap()
}

async fn create(store: &dyn PolicyStore, policy: &str) -> u64 {
    store.create(&policies([policy]), &alice()).await.unwrap().revision.0
}

async fn delete(store: &dyn PolicyStore, policy: &str) -> u64 {
    store.delete(&policies([policy]), &alice()).await.unwrap().revision.0
}

async fn where_no_cell_reports_tags_are_free_at_once(database: Database) {
    let store = database.open().await;
    report(&*store, "server", CellsReport::Silent).await;
    create(&*store, "web db tcp 1").await;
    delete(&*store, "web db tcp 1").await;
    assert_eq!(store.quarantined_tags().await.unwrap(), 0);
    create(&*store, "other another tcp 1").await;
    assert_eq!(tags(&*store).await, ["other=1", "another=2"]);
}

async fn a_tag_is_free_when_every_cell_has_confirmed(database: Database) {
    let store = database.open().await;
    create(&*store, "web db tcp 1").await;
    report(&*store, "server", confirmed(1)).await;
    assert_eq!(delete(&*store, "web db tcp 1").await, 2);
    assert_eq!(tags(&*store).await, [""; 0], "nobody has them");
    assert_eq!(store.quarantined_tags().await.unwrap(), 2);
    create(&*store, "a b tcp 1").await;
    assert_eq!(tags(&*store).await, ["a=3", "b=4"], "1 and 2 mean web and db to the cells");

    assert_eq!(report(&*store, "server", confirmed(2)).await, 0, "that is the release itself");
    assert_eq!(report(&*store, "server", confirmed(3)).await, 2);
    assert_eq!(store.quarantined_tags().await.unwrap(), 0);
    create(&*store, "c d tcp 1").await;
    assert_eq!(tags(&*store).await, ["c=1", "d=2", "a=3", "b=4"]);
}

async fn the_last_owner_gets_its_tag_back_at_once(database: Database) {
    let store = database.open().await;
    create(&*store, "web db tcp 1").await;
    report(&*store, "server", confirmed(1)).await;
    delete(&*store, "web db tcp 1").await;
    create(&*store, "new db tcp 1").await;
    assert_eq!(tags(&*store).await, ["db=2", "new=3"]);
    create(&*store, "web db tcp 1").await;
    assert_eq!(tags(&*store).await, ["web=1", "db=2", "new=3"]);
    assert_eq!(store.quarantined_tags().await.unwrap(), 0);
}

async fn the_slowest_of_several_servers_decides(database: Database) {
    let (one, two) = (database.open().await, database.open().await);
    create(&*one, "web db tcp 1").await;
    report(&*one, "one", confirmed(1)).await;
    report(&*two, "two", confirmed(1)).await;
    report(&*two, "without cells", CellsReport::Silent).await;
    delete(&*two, "web db tcp 1").await;
    create(&*one, "a b tcp 1").await;
    assert_eq!(report(&*one, "one", confirmed(3)).await, 0, "cells of the other may lag behind");
    assert_eq!(report(&*two, "two", confirmed(3)).await, 2);
    // A server whose last cell went away has none to wait for.
    delete(&*one, "a b tcp 1").await;
    assert_eq!(report(&*one, "one", CellsReport::Silent).await, 0);
    assert_eq!(report(&*two, "two", CellsReport::Silent).await, 2, "nobody says anything any more");
}

async fn quarantined_tags_are_not_given_when_all_others_are(database: Database) {
    let store = database.open().await;
    create(&*store, "web db tcp 1").await;
    report(&*store, "server", confirmed(1)).await;
    delete(&*store, "web db tcp 1").await;
    for number in 3..=255 {
        assert_eq!(store.tag_for(&format!("t{number}"), "router").await.unwrap().id(), number);
    }
    store.tag_for("one-too-many", "router").await.unwrap_err();
    assert_eq!(store.tag_for("db", "router").await.unwrap().id(), 2, "but to who had it");
    report(&*store, "server", confirmed(9)).await;
    assert_eq!(store.tag_for("one-too-many", "router").await.unwrap().id(), 1);
}

async fn a_store_told_so_quarantines_nothing(database: Database) {
    let store = database.open_with(&Options { tag_quarantine: false, ..one_byte() }).await;
    create(&*store, "web db tcp 1").await;
    report(&*store, "server", confirmed(1)).await;
    delete(&*store, "web db tcp 1").await;
    create(&*store, "a b tcp 1").await;
    assert_eq!(tags(&*store).await, ["a=1", "b=2"]);
}

async fn a_server_that_went_without_leave_is_remembered_but_not_waited_for(database: Database) {
    let store = database.open().await;
    let minutes = |count: u64| Duration::from_secs(60 * count);
    create(&*store, "web db tcp 1").await;
    for server in ["gone", "left"] {
        report(&*store, server, confirmed(1)).await;
    }
    store.take_leave("left").await.unwrap();
    store.take_leave("never heard of").await.unwrap();
    delete(&*store, "web db tcp 1").await;
    create(&*store, "a b tcp 1").await;
    assert_eq!(report(&*store, "alive", confirmed(3)).await, 0, "what both said counts");
    assert!(!store.is_server_lost(minutes(30)).await.unwrap());
    let hour = database.hours_ago(1);
    let sign = |server| format!("UPDATE netman_servers SET heard_at = {hour} WHERE {server}");
    database.by_hand(&sign("server LIKE 'left%'")).await;
    assert!(!store.is_server_lost(minutes(30)).await.unwrap(), "it took leave");
    database.by_hand(&sign("server = 'gone'")).await;
    assert!(store.is_server_lost(minutes(30)).await.unwrap());
    assert_eq!(report(&*store, "alive", confirmed(3)).await, 2, "for a minute");
    assert!(store.is_server_lost(minutes(30)).await.unwrap(), "it still is");
    store.forget_receipts(minutes(90)).await.unwrap();
    assert!(store.is_server_lost(minutes(30)).await.unwrap());
    store.forget_receipts(minutes(45)).await.unwrap();
    assert!(!store.is_server_lost(minutes(30)).await.unwrap());
}
