use policy::{Policy, Revision, Tag};
use policy_store::{AssignedTag, Change, Changes, StoreError};

use crate::{Database, alice, everything, policies, policy, stories, tags};

stories! {
    tags_are_given_lowest_first_and_reused,
    a_tag_is_kept_while_any_policy_names_its_app,
    exhaustion_changes_nothing,
    one_of_each_number_exists,
    asking_for_a_tag_gives_it_once_and_keeps_it,
    a_name_has_one_kind,
}

async fn tags_are_given_lowest_first_and_reused(database: Database) {
    let store = database.open().await;
    store.create(&policies(["web db tcp 1"]), &alice()).await.unwrap();
    store.create(&policies(["web cache tcp 1"]), &alice()).await.unwrap();
    assert_eq!(tags(&*store).await, ["web=1", "db=2", "cache=3"]);
    store.delete(&policies(["web db tcp 1"]), &alice()).await.unwrap();
    assert_eq!(tags(&*store).await, ["web=1", "cache=3"]);
    store.create(&policies(["queue web tcp 1", "late early tcp 1"]), &alice()).await.unwrap();
    assert_eq!(tags(&*store).await, ["web=1", "queue=2", "cache=3", "late=4", "early=5"]);
}

async fn a_tag_is_kept_while_any_policy_names_its_app(database: Database) {
    let store = database.open().await;
    let all = policies(["a b tcp 1", "a b tcp 2", "b c tcp 1", "d d tcp 1"]);
    store.create(&all, &alice()).await.unwrap();
    store.delete(&all[..1], &alice()).await.unwrap();
    assert_eq!(tags(&*store).await, ["a=1", "b=2", "c=3", "d=4"]);
    store.delete(&all[1..2], &alice()).await.unwrap();
    assert_eq!(tags(&*store).await, ["b=2", "c=3", "d=4"], "b is still a source");
    store.delete(&all[2..], &alice()).await.unwrap();
    assert_eq!(tags(&*store).await, [""; 0]);
}

async fn exhaustion_changes_nothing(database: Database) {
    let store = database.open().await;
    let many = |from: u32, to: u32| -> Vec<Policy> {
        let app = |n: u32| format!("app-{n}").parse().unwrap();
        (from..to)
            .map(|n| Policy { source: app(n), destination: app(n), ..policy("x x tcp 1") })
            .collect()
    };
    let version = store.create(&many(0, 254), &alice()).await.unwrap();
    let (before, last) = (everything(&*store).await, tags(&*store).await);
    let refused = store.create(&many(254, 256), &alice()).await.unwrap_err();
    assert!(matches!(refused, StoreError::NoTagLeft), "{refused:?}");
    assert_eq!(everything(&*store).await, before);
    assert_eq!(tags(&*store).await, last);
    assert_eq!(store.version().await.unwrap(), version);
    store.create(&many(254, 255), &alice()).await.expect("one tag is left");
}

async fn one_of_each_number_exists(database: Database) {
    let store = database.open().await;
    for number in 1..=255 {
        assert_eq!(store.tag_for(&format!("t{number}"), "router").await.unwrap().id(), number);
    }
    let refused = store.tag_for("one-too-many", "router").await.unwrap_err();
    assert!(matches!(refused, StoreError::NoTagLeft), "{refused:?}");
}

async fn asking_for_a_tag_gives_it_once_and_keeps_it(database: Database) {
    let store = database.open().await;
    let (updated, version) = (store.last_updated().await.unwrap(), store.version().await.unwrap());
    let tag = store.tag_for("INGRESS", "router").await.unwrap();
    assert_eq!(store.tag_for("INGRESS", "router").await.unwrap(), tag);
    assert_eq!(store.tag_for("", "").await.unwrap().id(), 2, "nothing is validated");
    assert_eq!(store.last_updated().await.unwrap(), updated, "no policy changed");
    let (given, now) = (version.revision.0 + 2, store.version().await.unwrap());
    assert_eq!(now.revision.0, given, "a revision for each that was given, none for asking");
    let Changes::Log(log) = store.changes_since(&version).await.unwrap() else {
        panic!("forgotten")
    };
    let given = |id: &str, kind: &str, tag| AssignedTag {
        id: id.to_owned(),
        kind: kind.to_owned(),
        tag: Tag::new(tag).unwrap(),
    };
    let [first, second] = [given("INGRESS", "router", 1), given("", "", 2)].map(Change::TagGiven);
    assert_eq!(log, [(Revision(1), first), (Revision(2), second)]);
    let listed = store.tags().await.unwrap();
    assert_eq!((listed[0].id.as_str(), listed[0].kind.as_str()), ("INGRESS", "router"));

    // A tag asked for as an app's is freed like any app's.
    store.tag_for("web", "app").await.unwrap();
    store.create(&policies(["web web tcp 1"]), &alice()).await.unwrap();
    assert_eq!(tags(&*store).await, ["INGRESS=1", "=2", "web=3"]);
    store.delete(&policies(["web web tcp 1"]), &alice()).await.unwrap();
    assert_eq!(tags(&*store).await, ["INGRESS=1", "=2"]);
}

async fn a_name_has_one_kind(database: Database) {
    let store = database.open().await;
    store.tag_for("web", "router").await.unwrap();
    let refused =
        store.create(&policies(["db cache tcp 1", "web db tcp 1"]), &alice()).await.unwrap_err();
    assert!(matches!(refused, StoreError::TagOfOtherKind { .. }), "{refused:?}");
    assert_eq!(tags(&*store).await, ["web=1"]);
    let refused = store.tag_for("web", "other").await.unwrap_err();
    assert!(matches!(refused, StoreError::TagOfOtherKind { .. }), "{refused:?}");
}
