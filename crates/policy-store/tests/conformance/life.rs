use policy::{Revision, Version};
use policy_store::{CellsReport, Change, Changes};

use crate::{Database, alice, policies, stories, tags};

stories! {
    another_life_begins_when_told_so,
    another_life_begins_where_the_revision_fell,
    of_several_that_see_it_fall_one_begins_another_life,
    what_cells_confirmed_in_another_life_frees_no_tag,
    the_state_comes_with_the_log,
    a_log_that_cannot_be_read_is_no_reason_to_give_no_state,
    clocks_set_back_change_nothing,
}

async fn another_life_begins_when_told_so(database: Database) {
    let store = database.open().await;
    let before = store.create(&policies(["web db tcp 1"]), &alice()).await.unwrap();
    let since = store.begin_another_life(None).await.unwrap();
    assert_ne!(since.life, before.life);
    assert_eq!(since.revision, before.revision);
    assert_eq!(store.version().await.unwrap(), since);
    assert_eq!(store.changes_since(&before).await.unwrap(), Changes::Forgotten);
    assert_eq!(store.changes_since(&since).await.unwrap(), Changes::Log(vec![]));
    let state = store.state().await.unwrap();
    assert_eq!((state.policies.len(), state.log, state.compacted), (1, vec![], since.revision));
    drop(store);
    assert_eq!(database.open().await.version().await.unwrap(), since, "it is kept");
}

async fn another_life_begins_where_the_revision_fell(database: Database) {
    let store = database.open().await;
    let seen = store.create(&policies(["web db tcp 1"]), &alice()).await.unwrap();
    assert_eq!(store.begin_another_life(Some(&seen)).await.unwrap(), seen, "nothing fell");
    let later = store.create(&policies(["web db tcp 2"]), &alice()).await.unwrap();
    assert_eq!(store.begin_another_life(Some(&seen)).await.unwrap(), later, "it went on");
    database.by_hand("UPDATE netman_revision SET revision = 1").await;
    assert_eq!(store.changes_since(&later).await.unwrap(), Changes::Forgotten);
    let since = store.begin_another_life(Some(&later)).await.unwrap();
    assert_ne!(since.life, seen.life);
    assert_eq!(since.revision, Revision(1));
}

async fn of_several_that_see_it_fall_one_begins_another_life(database: Database) {
    let (one, two) = (database.open().await, database.open().await);
    let seen = one.create(&policies(["web db tcp 1"]), &alice()).await.unwrap();
    let seen = Version { revision: Revision(seen.revision.0 + 50), ..seen };
    let (first, second) =
        tokio::join!(one.begin_another_life(Some(&seen)), two.begin_another_life(Some(&seen)));
    let first = first.unwrap();
    assert_ne!(first.life, seen.life);
    assert_eq!(second.unwrap(), first);
}

async fn what_cells_confirmed_in_another_life_frees_no_tag(database: Database) {
    let store = database.open().await;
    let confirmed = |revision| CellsReport::Confirmed(Revision(revision));
    store.create(&policies(["web db tcp 1", "x y tcp 1"]), &alice()).await.unwrap();
    store.report_cells("one", confirmed(1)).await.unwrap();
    store.report_cells("two", confirmed(1)).await.unwrap();
    store.begin_another_life(None).await.unwrap();
    store.delete(&policies(["web db tcp 1"]), &alice()).await.unwrap();
    // This one has not noticed yet, and speaks of a revision that this life has not come to.
    assert_eq!(store.report_cells("one", confirmed(900)).await.unwrap(), 0);
    assert_eq!(store.report_cells("two", confirmed(900)).await.unwrap(), 0);
    assert_eq!(store.quarantined_tags().await.unwrap(), 2);
    store.create(&policies(["x y tcp 2"]), &alice()).await.unwrap();
    assert_eq!(store.report_cells("one", confirmed(3)).await.unwrap(), 0);
    assert_eq!(store.report_cells("two", confirmed(3)).await.unwrap(), 2);
    assert_eq!(tags(&*store).await, ["x=3", "y=4"]);
}

async fn the_state_comes_with_the_log(database: Database) {
    let store = database.open().await;
    let start = store.version().await.unwrap();
    let both = policies(["a b tcp 1", "a c udp 2-3"]);
    store.create(&both, &alice()).await.unwrap();
    store.delete(&both[..1], &alice()).await.unwrap();
    let state = store.state().await.unwrap();
    assert_eq!((state.log.len(), state.compacted), (3, Revision(0)));
    assert_eq!(store.changes_since(&start).await.unwrap(), Changes::Log(state.log));
    for _ in 0..510 {
        store.create(&both[..1], &alice()).await.unwrap();
        store.delete(&both[..1], &alice()).await.unwrap();
    }
    let state = store.state().await.unwrap();
    assert!(state.compacted > Revision(0), "1000 are kept");
    assert_eq!(state.log.first().unwrap().0.0, state.compacted.0 + 1);
    assert_eq!(state.log.last().unwrap().0, state.version.revision);
}

async fn a_log_that_cannot_be_read_is_no_reason_to_give_no_state(database: Database) {
    let store = database.open().await;
    store.create(&policies(["a b tcp 1"]), &alice()).await.unwrap();
    database
        .by_hand(
            "UPDATE netman_revision SET revision = 2;
             INSERT INTO netman_changes (revision, kind) VALUES (2, 'of-tomorrow')",
        )
        .await;
    let state = store.state().await.unwrap();
    assert_eq!((state.policies.len(), state.log, state.compacted), (1, vec![], Revision(2)));
}

/// The time of the last update is ahead of every clock, as after one that was set back.
async fn clocks_set_back_change_nothing(database: Database) {
    let store = database.open().await;
    let before = store.create(&policies(["a b tcp 1"]), &alice()).await.unwrap();
    database.move_our_time_ahead().await;
    assert_eq!(store.changes_since(&before).await.unwrap(), Changes::Log(vec![]), "ours, still");
    let ahead = store.last_updated().await.unwrap();
    assert_eq!(store.last_updated_seen(), Some(ahead));
    let (mut updated, mut last) = (ahead, before.clone());
    for port in 2..=4 {
        let next = store.create(&policies([&format!("a b tcp {port}")]), &alice()).await.unwrap();
        assert_eq!(next.revision.0, last.revision.0 + 1);
        let now = store.last_updated().await.unwrap();
        assert!(now > updated, "it moves, and never backwards");
        (updated, last) = (now, next);
    }
    let Changes::Log(log) = store.changes_since(&before).await.unwrap() else {
        panic!("something was adopted");
    };
    assert_eq!(log.iter().map(|(revision, _)| revision.0).collect::<Vec<_>>(), [2, 3, 4]);
    assert!(log.iter().all(|(_, change)| matches!(change, Change::PolicyAdded(_))));
}
