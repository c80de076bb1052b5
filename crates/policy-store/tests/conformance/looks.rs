use std::{future::Future, time::Duration};

use policy::Revision;
use policy_store::{CellsReport, Changes, PolicyStore};

use crate::{Database, alice, at, policies, stories};

stories! {
    a_look_that_finds_nothing_is_one_query,
    what_a_server_does_at_rest_costs_a_query_each,
    a_report_ends_a_quarantine_only_where_there_is_one,
    the_last_look_knows_the_time_of_the_last_update,
}

/// How many queries `work` takes; beginning and ending a transaction are among them.
async fn queries<T>(store: &dyn PolicyStore, work: impl Future<Output = T>) -> (u64, T) {
    let before = store.figures();
    let done = work.await;
    let after = store.figures();
    assert_eq!(after.failed, before.failed);
    (after.succeeded - before.succeeded, done)
}

async fn a_look_that_finds_nothing_is_one_query(database: Database) {
    let store = database.open().await;
    let seen = store.create(&policies(["a b tcp 1"]), &alice()).await.unwrap();
    let (count, changes) = queries(&*store, store.changes_since(&seen)).await;
    assert_eq!((count, changes.unwrap()), (1, Changes::Log(vec![])));
    store.create(&policies(["a b tcp 2", "a c tcp 1"]), &alice()).await.unwrap();
    let (count, changes) = queries(&*store, store.changes_since(&seen)).await;
    let Changes::Log(log) = changes.unwrap() else { panic!("forgotten") };
    assert_eq!(log.len(), 2);
    assert!(count <= 4, "{count} queries for a change");
}

async fn what_a_server_does_at_rest_costs_a_query_each(database: Database) {
    let store = database.open().await;
    store.create(&policies(["a b tcp 1"]), &alice()).await.unwrap();
    store.report_cells("server", CellsReport::Confirmed(Revision(1))).await.unwrap();
    let store = &*store;
    let report = store.report_cells("server", CellsReport::Confirmed(Revision(1)));
    assert_eq!(queries(store, report).await.0, 1, "a report");
    store.replace_security_groups(&[crate::security_groups::group("dns")]).await.unwrap();
    assert_eq!(queries(store, store.security_groups()).await.0, 1, "comparing groups");
    let lapse = store.lapse_leases(Duration::from_secs(60), at(0));
    assert_eq!(queries(store, lapse).await.0, 1, "looking for leases that lapse");
    assert_eq!(queries(store, store.version()).await.0, 1);
    assert_eq!(queries(store, store.last_updated()).await.0, 1);
    assert_eq!(queries(store, store.tags()).await.0, 1);
    assert_eq!(queries(store, store.quarantined_tags()).await.0, 1);
    assert_eq!(queries(store, store.receipts()).await.0, 1);
    assert_eq!(queries(store, store.write_receipts("server", &[])).await.0, 0);
    assert_eq!(queries(store, async { store.last_updated_seen() }).await.0, 0);
}

async fn a_report_ends_a_quarantine_only_where_there_is_one(database: Database) {
    let store = database.open().await;
    let store = &*store;
    let report =
        |revision| store.report_cells("server", CellsReport::Confirmed(Revision(revision)));
    store.create(&policies(["a b tcp 1", "c d tcp 1"]), &alice()).await.unwrap();
    report(1).await.unwrap();
    store.delete(&policies(["a b tcp 1"]), &alice()).await.unwrap();
    assert_eq!(queries(store, report(2)).await.0, 1, "nothing ends");
    store.create(&policies(["c d tcp 2"]), &alice()).await.unwrap();
    let (count, freed) = queries(store, report(3)).await;
    assert_eq!((count, freed.unwrap()), (2, 2));
    assert_eq!(queries(store, report(3)).await.0, 1);
}

async fn the_last_look_knows_the_time_of_the_last_update(database: Database) {
    let (store, other) = (database.open().await, database.open().await);
    assert_eq!(store.last_updated_seen(), None);
    let before = store.version().await.unwrap();
    let updated = store.last_updated().await.unwrap();
    assert_eq!(store.last_updated_seen(), Some(updated));
    let after = other.create(&policies(["a b tcp 1"]), &alice()).await.unwrap();
    assert_eq!(store.last_updated_seen(), Some(updated), "it has not looked");
    store.changes_since(&before).await.unwrap();
    let seen = store.last_updated_seen();
    assert_eq!(seen, Some(other.last_updated().await.unwrap()));
    assert_ne!(seen, Some(updated));
    // Nothing new, but told of again: the time moves without a revision.
    other.create(&policies(["a b tcp 1"]), &alice()).await.unwrap();
    assert_eq!(store.changes_since(&after).await.unwrap(), Changes::Log(vec![]));
    assert_eq!(store.last_updated_seen(), Some(other.last_updated().await.unwrap()));
}
