use policy::{Life, Revision, Version};
use policy_store::{Change, Changes, Filter};

use crate::{Database, alice, policies, stories};

stories! {
    every_change_takes_the_next_revision,
    the_log_tells_what_happened,
    the_log_forgets_and_says_so,
    the_state_is_of_one_instant,
    every_database_has_a_life_of_its_own,
    what_an_older_server_writes_gets_a_revision,
}

async fn every_change_takes_the_next_revision(database: Database) {
    let store = database.open().await;
    assert_eq!(store.version().await.unwrap().revision, Revision(0));
    let first = store.create(&policies(["a b tcp 1", "a b tcp 2"]), &alice()).await.unwrap();
    let second = store.delete(&policies(["a b tcp 2"]), &alice()).await.unwrap();
    assert_eq!((first.revision, second.revision), (Revision(1), Revision(2)));
    assert_eq!(store.version().await.unwrap(), second);
}

async fn the_log_tells_what_happened(database: Database) {
    let store = database.open().await;
    let start = store.version().await.unwrap();
    let both = policies(["a b tcp 1", "a c udp 2-3"]);
    let first = store.create(&both, &alice()).await.unwrap();
    let listed = store.policies(&Filter::All).await.unwrap();
    let second = store.delete(&both[..1], &alice()).await.unwrap();

    let tagged = |index: usize| listed.iter().find(|t| t.policy == both[index]).unwrap().clone();
    let removal = (Revision(2), Change::PolicyRemoved(tagged(0)));
    let all = vec![
        (Revision(1), Change::PolicyAdded(tagged(0))),
        (Revision(1), Change::PolicyAdded(tagged(1))),
        removal.clone(),
    ];
    assert_eq!(store.changes_since(&start).await.unwrap(), Changes::Log(all));
    assert_eq!(store.changes_since(&first).await.unwrap(), Changes::Log(vec![removal]));
    assert_eq!(store.changes_since(&second).await.unwrap(), Changes::Log(vec![]));
}

async fn the_log_forgets_and_says_so(database: Database) {
    let store = database.open().await;
    let start = store.version().await.unwrap();
    let policy = policies(["a b tcp 1"]);
    let mut recent = start.clone();
    for _ in 0..510 {
        recent = store.create(&policy, &alice()).await.unwrap();
        store.delete(&policy, &alice()).await.unwrap();
    }
    assert_eq!(store.changes_since(&start).await.unwrap(), Changes::Forgotten);
    let Changes::Log(log) = store.changes_since(&recent).await.unwrap() else {
        panic!("the log forgot its last entry");
    };
    assert_eq!(log.len(), 1);

    let other_life = Version { life: Life::new("another").unwrap(), ..recent.clone() };
    assert_eq!(store.changes_since(&other_life).await.unwrap(), Changes::Forgotten);
    let future = Version { revision: Revision(u64::MAX), ..recent };
    assert_eq!(store.changes_since(&future).await.unwrap(), Changes::Forgotten);
}

async fn the_state_is_of_one_instant(database: Database) {
    let store = database.open().await;
    let writer = store.clone();
    let writing = tokio::spawn(async move {
        for port in 1..=200 {
            writer.create(&policies([&format!("a b tcp {port}")]), &alice()).await.unwrap();
        }
    });
    while !writing.is_finished() {
        let state = store.state().await.unwrap();
        assert_eq!(state.policies.len() as u64, state.version.revision.0);
    }
    writing.await.unwrap();
}

async fn every_database_has_a_life_of_its_own(database: Database) {
    let store = database.open().await;
    let another = database.another().await;
    let other = another.open().await.version().await.unwrap();
    assert_ne!(store.version().await.unwrap().life, other.life);
}

/// A server of the existing system takes no revisions; all it leaves is another time of the update.
async fn what_an_older_server_writes_gets_a_revision(database: Database) {
    let store = database.open().await;
    let version = store.create(&policies(["web db tcp 1"]), &alice()).await.unwrap();
    assert_eq!(store.version().await.unwrap(), version, "what we wrote is explained");
    database.by_hand("DELETE FROM policies; DELETE FROM destinations").await;
    database.move_the_time().await;
    assert_eq!(store.changes_since(&version).await.unwrap(), Changes::Forgotten);
    let adopted = store.version().await.unwrap();
    assert_eq!(adopted.revision.0, version.revision.0 + 1);
    assert_eq!(store.state().await.unwrap().policies, []);
    assert_eq!(store.changes_since(&adopted).await.unwrap(), Changes::Log(vec![]));
    assert_eq!(store.version().await.unwrap(), adopted, "once is enough");

    // Also where our own next change comes first.
    database.move_the_time().await;
    store.create(&policies(["a b tcp 1"]), &alice()).await.unwrap();
    assert_eq!(store.changes_since(&adopted).await.unwrap(), Changes::Forgotten);
}
