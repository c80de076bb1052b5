use std::time::{Duration, Instant};

use crate::{Database, stories};

const LONG: Duration = Duration::from_secs(3600);

stories! {
    one_leads_until_it_resigns,
    the_lead_lapses_and_another_takes_it,
    one_of_many_gets_the_lead,
}

async fn one_leads_until_it_resigns(database: Database) {
    let store = database.open().await;
    let lead = async |group: &str, owner: &str| store.lead(group, owner, LONG).await.unwrap();
    assert!(lead("syncer", "one").await && lead("syncer", "one").await);
    assert!(!lead("syncer", "two").await);
    assert!(lead("cleaner", "two").await, "groups do not know of each other");
    store.resign("syncer", "two").await.unwrap();
    assert!(!lead("syncer", "two").await, "only the leader can resign");
    store.resign("syncer", "one").await.unwrap();
    assert!(lead("syncer", "two").await && !lead("syncer", "one").await);
    // None of this is a change that cells need to hear of.
    assert_eq!(store.version().await.unwrap().revision.0, 0);
}

async fn the_lead_lapses_and_another_takes_it(database: Database) {
    let store = database.open().await;
    let short = Duration::from_millis(300);
    let started = Instant::now();
    assert!(store.lead("syncer", "one", short).await.unwrap());
    while !store.lead("syncer", "two", LONG).await.unwrap() {
        assert!(started.elapsed() < Duration::from_secs(20), "the lead never lapsed");
        tokio::task::yield_now().await;
    }
    assert!(started.elapsed() >= short, "it lapsed before its time");
    assert!(!store.lead("syncer", "one", LONG).await.unwrap(), "whoever slept is told so");
}

async fn one_of_many_gets_the_lead(database: Database) {
    let store = database.open().await;
    let asking: Vec<_> = (0..16)
        .map(|owner| {
            let store = store.clone();
            tokio::spawn(async move {
                store.lead("syncer", &format!("owner-{owner}"), LONG).await.unwrap()
            })
        })
        .collect();
    let mut leaders = 0;
    for asking in asking {
        leaders += u32::from(asking.await.unwrap());
    }
    assert_eq!(leaders, 1);
}
