use std::{collections::BTreeSet, time::Duration};

use policy::{Life, Revision, Version};
use policy_store::{CellsReport, HeardReceipt, PolicyStore, StoredReceipt};
use uuid::Uuid;

use crate::{Database, alice, policies, stories};

stories! {
    a_receipt_comes_back_as_it_was_said,
    the_last_word_counts_whichever_server_heard_it,
    a_batch_that_comes_late_replaces_nothing,
    the_next_word_to_one_server_replaces_the_one_before_however_late_that_came,
    of_words_nobody_speaks_for_the_last_counts,
    whoever_writes_policies_is_not_waited_for,
    cells_of_a_server_that_reports_are_remembered,
    a_clock_set_back_makes_no_word_wait,
}

fn word(cell: &str, revision: u64, seconds: u64) -> StoredReceipt {
    StoredReceipt {
        cell: cell.to_owned(),
        enforced: Some(version(revision)),
        apps: None,
        backend: None,
        error: None,
        agent: None,
        age: Duration::from_secs(seconds),
    }
}

fn version(revision: u64) -> Version {
    Version { life: Life::new("life").unwrap(), revision: Revision(revision) }
}

/// Each cell with its server and the revision it enforces.
async fn told(store: &dyn PolicyStore) -> Vec<(String, String, u64)> {
    let told = |heard: HeardReceipt| {
        let StoredReceipt { cell, enforced, .. } = heard.receipt;
        (cell, heard.server, enforced.unwrap().revision.0)
    };
    store.receipts().await.unwrap().into_iter().map(told).collect()
}

fn cell(name: &str, server: &str, revision: u64) -> (String, String, u64) {
    (name.to_owned(), server.to_owned(), revision)
}

async fn a_receipt_comes_back_as_it_was_said(database: Database) {
    let store = database.open().await;
    let apps: BTreeSet<_> = ["web", "nul\0", "ü\"[,]"].map(|app| app.parse().unwrap()).into();
    let full = StoredReceipt {
        apps: Some(apps),
        backend: Some("nftables".to_owned()),
        error: Some("no\0 such 'table'".to_owned()),
        agent: Some(Uuid::from_u128(7)),
        ..word("cell-1", u64::from(u32::MAX) * 9, 3)
    };
    let nothing = StoredReceipt { enforced: None, ..word("cell-2", 0, 0) };
    let none = StoredReceipt { apps: Some(BTreeSet::new()), ..word("cell-3", 0, 0) };
    let said = [none.clone(), full.clone(), nothing.clone()];
    store.write_receipts("server", &said).await.unwrap();
    let heard = store.receipts().await.unwrap();
    let minute = Duration::from_secs(60);
    assert!(heard.iter().all(|heard| heard.server == "server" && heard.server_silent < minute));
    let age = heard[0].receipt.age;
    assert!((Duration::from_secs(3)..minute).contains(&age), "{age:?}");
    let read: Vec<_> = heard
        .into_iter()
        .map(|heard| StoredReceipt { age: Duration::ZERO, ..heard.receipt })
        .collect();
    let error = Some("no\u{fffd} such 'table'".to_owned());
    assert_eq!(read, [StoredReceipt { error, age: Duration::ZERO, ..full }, nothing, none]);
    store.write_receipts("server", &[]).await.unwrap();
}

async fn the_last_word_counts_whichever_server_heard_it(database: Database) {
    let (one, two) = (database.open().await, database.open().await);
    one.write_receipts("one", &[word("c1", 4, 9), word("c2", 4, 9)]).await.unwrap();
    two.write_receipts("two", &[word("c3", 7, 2), word("c2", 5, 2), word("c2", 6, 1)])
        .await
        .unwrap();
    let expected = [cell("c1", "one", 4), cell("c2", "two", 6), cell("c3", "two", 7)];
    assert_eq!(told(&*one).await, expected);
    assert_eq!(told(&*two).await, expected);
    one.write_receipts("one", &[word("c2", 8, 0)]).await.unwrap();
    assert_eq!(told(&*two).await[1], cell("c2", "one", 8));
}

async fn a_batch_that_comes_late_replaces_nothing(database: Database) {
    let (slow, fast) = (database.open().await, database.open().await);
    fast.write_receipts("fast", &[word("c1", 9, 1)]).await.unwrap();
    slow.write_receipts("slow", &[word("c1", 8, 30), word("c2", 8, 30)]).await.unwrap();
    assert_eq!(told(&*fast).await, [cell("c1", "fast", 9), cell("c2", "slow", 8)]);

    // However many write at the same time, in whatever order.
    let mut writing = Vec::new();
    for age in (1..=8).rev() {
        let store = if age % 2 == 0 { slow.clone() } else { fast.clone() };
        writing.push(tokio::spawn(async move {
            let said: Vec<_> =
                (0..50).map(|cell| word(&format!("cell-{cell}"), 1000 - age, 60 * age)).collect();
            store.write_receipts(&format!("server-{age}"), &said).await.unwrap();
        }));
    }
    for written in writing {
        written.await.unwrap();
    }
    let told = told(&*slow).await;
    let many: Vec<_> = told.iter().filter(|(cell, ..)| cell.starts_with("cell-")).collect();
    assert_eq!(many.len(), 50);
    assert!(many.iter().all(|(_, server, last)| (server.as_str(), *last) == ("server-1", 999)));
}

async fn the_next_word_to_one_server_replaces_the_one_before_however_late_that_came(
    database: Database,
) {
    let store = database.open().await;
    store.write_receipts("server", &[word("c1", 4, 0)]).await.unwrap();
    let next = StoredReceipt { backend: Some("nftables".to_owned()), ..word("c1", 5, 20) };
    store.write_receipts("server", &[next]).await.unwrap();
    assert_eq!(told(&*store).await, [cell("c1", "server", 5)]);
    let heard = store.receipts().await.unwrap();
    assert_eq!(heard[0].receipt.backend.as_deref(), Some("nftables"), "all of it is replaced");
    store.write_receipts("other", &[word("c1", 6, 25)]).await.unwrap();
    assert_eq!(told(&*store).await, [cell("c1", "server", 5)]);
}

/// Servers let go of a cell under the same name, each in its own time.
async fn of_words_nobody_speaks_for_the_last_counts(database: Database) {
    let store = database.open().await;
    store.write_receipts("", &[word("c1", 7, 3)]).await.unwrap();
    store.write_receipts("", &[word("c1", 5, 11)]).await.unwrap();
    assert_eq!(told(&*store).await, [cell("c1", "", 7)]);
    store.write_receipts("", &[word("c1", 8, 1)]).await.unwrap();
    assert_eq!(told(&*store).await, [cell("c1", "", 8)]);
}

/// A transaction that holds what writers queue at, as a change of an older server does.
async fn whoever_writes_policies_is_not_waited_for(database: Database) {
    let store = database.open().await;
    store.create(&policies(["web db tcp 1"]), &alice()).await.unwrap();
    let Some(holding) = database.hold_the_lock().await else {
        return; // One file has one writer, whatever is written.
    };
    let writer = store.clone();
    let waiting = tokio::spawn(async move {
        writer.create(&policies(["a b tcp 1"]), &alice()).await.unwrap();
    });
    let noting = async {
        store.write_receipts("server", &[word("c1", 1, 0)]).await.unwrap();
        store.report_cells("server", CellsReport::Confirmed(Revision(1))).await.unwrap();
        store.forget_receipts(Duration::ZERO).await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(30), noting).await.expect("it waits for the writer");
    assert!(!waiting.is_finished(), "the lock was not held");
    drop(holding);
    waiting.await.unwrap();
}

async fn cells_of_a_server_that_reports_are_remembered(database: Database) {
    let store = database.open().await;
    store.write_receipts("gone", &[word("c1", 1, 0)]).await.unwrap();
    store.write_receipts("alive", &[word("c2", 1, 0)]).await.unwrap();
    assert_eq!(store.forget_receipts(Duration::from_secs(60)).await.unwrap(), 0, "just written");
    store.write_receipts("gone", &[word("c3", 1, 0)]).await.unwrap();
    let hours = database.hours_ago(3);
    database
        .by_hand(&format!("UPDATE netman_receipts SET said_at = {hours}, heard_at = {hours}"))
        .await;
    store.report_cells("alive", CellsReport::Silent).await.unwrap();
    let heard = store.receipts().await.unwrap();
    let hour = Duration::from_secs(3600);
    assert!(heard[0].server_silent > 2 * hour && heard[1].server_silent < hour, "{heard:?}");
    assert!(heard[1].receipt.age > 2 * hour, "the word is as old as it is");
    assert_eq!(store.forget_receipts(hour).await.unwrap(), 2);
    assert_eq!(told(&*store).await, [cell("c2", "alive", 1)]);
}

async fn a_clock_set_back_makes_no_word_wait(database: Database) {
    let store = database.open().await;
    store.write_receipts("server", &[word("c1", 1, 0)]).await.unwrap();
    store.report_cells("server", CellsReport::Silent).await.unwrap();
    // The clock went back by an hour: what was written lies in the future.
    let ahead = database.hours_ago(-1);
    database
        .by_hand(&format!("UPDATE netman_receipts SET said_at = {ahead}, heard_at = {ahead}"))
        .await;
    database.by_hand(&format!("UPDATE netman_servers SET heard_at = {ahead}")).await;
    let heard = store.receipts().await.unwrap();
    assert_eq!((heard[0].receipt.age, heard[0].server_silent), (Duration::ZERO, Duration::ZERO));
    store.write_receipts("server", &[word("c1", 2, 0)]).await.unwrap();
    assert_eq!(told(&*store).await, [cell("c1", "server", 2)]);
    store.write_receipts("late", &[word("c1", 1, 30)]).await.unwrap();
    assert_eq!(told(&*store).await, [cell("c1", "server", 2)], "and from then on as ever");
}
