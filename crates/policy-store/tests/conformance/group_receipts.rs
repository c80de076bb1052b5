//! What cells say of security groups.

use std::time::Duration;

use policy::{Life, Revision, Version};
use policy_store::{PolicyStore, StoredGroupReceipt, StoredReceipt};

use crate::{Database, stories};

stories! {
    a_word_about_groups_comes_back_as_it_was_said,
    the_last_word_about_groups_counts,
    a_word_about_groups_goes_after_the_cells_receipt,
}

fn word(cell: &str, revision: u64, seconds: u64) -> StoredGroupReceipt {
    StoredGroupReceipt {
        cell: cell.to_owned(),
        enforced: Some(Version { life: Life::new("life").unwrap(), revision: Revision(revision) }),
        spaces: ["a".to_owned()].into(),
        error: None,
        age: Duration::from_secs(seconds),
    }
}

async fn told(store: &dyn PolicyStore) -> Vec<(String, u64)> {
    let told = |receipt: StoredGroupReceipt| (receipt.cell, receipt.enforced.unwrap().revision.0);
    store.group_receipts().await.unwrap().into_iter().map(told).collect()
}

async fn a_word_about_groups_comes_back_as_it_was_said(database: Database) {
    let store = database.open().await;
    let full = StoredGroupReceipt {
        spaces: ["nul\0", "ü\"[,]"].map(str::to_owned).into(),
        error: Some("no\0 such 'table'".to_owned()),
        ..word("cell-1", u64::from(u32::MAX) * 9, 3)
    };
    let nothing = StoredGroupReceipt { enforced: None, spaces: [].into(), ..word("cell-2", 0, 0) };
    store.write_group_receipts(&[nothing.clone(), full.clone()]).await.unwrap();
    let read = store.group_receipts().await.unwrap();
    assert!((Duration::from_secs(3)..Duration::from_secs(60)).contains(&read[0].age), "{read:?}");
    let error = Some("no\u{fffd} such 'table'".to_owned());
    let ages = read.iter().map(|receipt| receipt.age).collect::<Vec<_>>();
    let expected = [
        StoredGroupReceipt { error, age: ages[0], ..full },
        StoredGroupReceipt { age: ages[1], ..nothing },
    ];
    assert_eq!(read, expected);
    store.write_group_receipts(&[]).await.unwrap();
}

async fn the_last_word_about_groups_counts(database: Database) {
    let (one, two) = (database.open().await, database.open().await);
    one.write_group_receipts(&[word("c1", 4, 9), word("c2", 4, 9)]).await.unwrap();
    two.write_group_receipts(&[word("c2", 6, 1), word("c2", 5, 2), word("c\0", 1, 0)])
        .await
        .unwrap();
    one.write_group_receipts(&[word("c2", 3, 5)]).await.unwrap();
    assert_eq!(told(&*one).await, [("c1".to_owned(), 4), ("c2".to_owned(), 6)]);
}

async fn a_word_about_groups_goes_after_the_cells_receipt(database: Database) {
    let store = database.open().await;
    let day = Duration::from_secs(24 * 60 * 60);
    let old = |cell| word(cell, 4, 2 * 24 * 60 * 60);
    store.write_group_receipts(&[old("gone"), old("here"), word("new", 4, 1)]).await.unwrap();
    let here = StoredReceipt {
        cell: "here".to_owned(),
        enforced: None,
        apps: None,
        backend: None,
        error: None,
        agent: None,
        age: 2 * day,
    };
    store.write_receipts("server", &[here]).await.unwrap();
    assert_eq!(store.forget_group_receipts(day).await.unwrap(), 1);
    assert_eq!(told(&*store).await, [("here".to_owned(), 4), ("new".to_owned(), 4)]);
}
