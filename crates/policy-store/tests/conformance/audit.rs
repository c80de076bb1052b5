use std::time::{Duration, SystemTime};

use policy_store::{Action, Actor, AuditEntry, AuditQuery, PolicyStore};

use crate::{Database, alice, policies, stories};

stories! {
    every_change_leaves_an_entry,
    a_request_that_changes_nothing_leaves_none,
    a_failed_request_leaves_none,
    entries_come_newest_first_and_in_pages,
}

async fn newest(
    store: &dyn PolicyStore,
    limit: u32,
    before: Option<u64>,
) -> Vec<(u64, AuditEntry)> {
    store.audit(&AuditQuery { limit, before }).await.unwrap()
}

async fn every_change_leaves_an_entry(database: Database) {
    let store = database.open().await;
    let started = SystemTime::now();
    let both = policies(["web db tcp 1", "we\"b<> cache udp 2-3"]);
    let created = store.create(&both, &alice()).await.unwrap();
    let cleaner = Actor::system("policy-cleaner");
    let deleted = store.delete(&both[..1], &cleaner).await.unwrap();

    let entries = newest(&*store, 10, None).await;
    let [(second, removal), (first, addition)] = &entries[..] else { panic!("{entries:?}") };
    assert!(second > first);
    assert_eq!((&addition.actor, addition.action), (&alice(), Action::Created));
    assert_eq!((addition.revision, &addition.policies), (created.revision, &both));
    assert_eq!((&removal.actor, removal.action), (&cleaner, Action::Deleted));
    assert_eq!((removal.revision, &removal.policies[..]), (deleted.revision, &both[..1]));
    for entry in [addition, removal] {
        // Stored to the microsecond.
        assert!(entry.at + Duration::from_micros(1) > started && entry.at <= SystemTime::now());
    }
}

async fn a_request_that_changes_nothing_leaves_none(database: Database) {
    let store = database.open().await;
    store.create(&policies(["web db tcp 1"]), &alice()).await.unwrap();
    store.create(&policies(["web db tcp 1"]), &alice()).await.unwrap();
    store.delete(&policies(["web db tcp 2"]), &alice()).await.unwrap();
    store.create(&[], &alice()).await.unwrap();
    assert_eq!(newest(&*store, 10, None).await.len(), 1);
    // Of a request that changes something, what changed is told.
    store.create(&policies(["web db tcp 1", "a b tcp 1"]), &alice()).await.unwrap();
    assert_eq!(newest(&*store, 1, None).await[0].1.policies, policies(["a b tcp 1"]));
}

async fn a_failed_request_leaves_none(database: Database) {
    let store = database.open().await;
    store.tag_for("web", "router").await.unwrap();
    store.create(&policies(["a b tcp 1", "web db tcp 1"]), &alice()).await.unwrap_err();
    assert_eq!(newest(&*store, 10, None).await, []);
}

async fn entries_come_newest_first_and_in_pages(database: Database) {
    let store = database.open().await;
    for port in 1..=7 {
        store.create(&policies([&format!("web db tcp {port}")]), &alice()).await.unwrap();
    }
    let (mut before, mut ports) = (None, Vec::new());
    loop {
        let page = newest(&*store, 3, before).await;
        assert!(page.len() <= 3);
        let Some((last, _)) = page.last() else { break };
        before = Some(*last);
        ports.extend(page.iter().map(|(_, entry)| entry.policies[0].ports.start()));
    }
    assert_eq!(ports, [7, 6, 5, 4, 3, 2, 1]);
}
