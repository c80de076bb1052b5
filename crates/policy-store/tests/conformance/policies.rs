use std::collections::BTreeSet;

use policy::{Policy, Protocol};
use policy_store::{Filter, StoreError};

use crate::{Database, alice, everything, policies, policy, select, stories, tags};

stories! {
    a_created_policy_is_listed_until_it_is_deleted,
    creating_what_exists_and_deleting_what_is_missing_succeed,
    a_batch_may_repeat_itself,
    a_range_is_deleted_only_as_it_was_created,
    filters_select_by_either_end,
    names_are_taken_as_they_are,
    a_name_no_database_can_keep_is_nobodys,
    reopening_keeps_everything,
    a_batch_of_thousands_is_one_change,
}

async fn a_created_policy_is_listed_until_it_is_deleted(database: Database) {
    let store = database.open().await;
    let both = policies(["web db tcp 5432", "web cache udp 7000-7010"]);
    store.create(&both, &alice()).await.unwrap();
    assert_eq!(everything(&*store).await, both.iter().cloned().collect());
    store.delete(&both[..1], &alice()).await.unwrap();
    assert_eq!(everything(&*store).await, both[1..].iter().cloned().collect());
    store.delete(&both[1..], &alice()).await.unwrap();
    assert_eq!(everything(&*store).await, BTreeSet::new());
}

async fn creating_what_exists_and_deleting_what_is_missing_succeed(database: Database) {
    let store = database.open().await;
    let known = policies(["web db tcp 5432"]);
    let created = store.create(&known, &alice()).await.unwrap();
    let before = store.last_updated().await.unwrap();
    assert_eq!(store.create(&known, &alice()).await.unwrap(), created, "nothing changed");
    let missing = policies(["web db udp 5432", "nobody db tcp 1", "db web tcp 5432"]);
    assert_eq!(store.delete(&missing, &alice()).await.unwrap(), created, "nothing changed");
    assert_eq!(everything(&*store).await, known.iter().cloned().collect());
    assert!(store.last_updated().await.unwrap() > before, "both calls count as updates");
    // One that exists among many that do not is still deleted.
    let mixed = policies(["nobody db tcp 1", "web db tcp 5432", "web db tcp 5433"]);
    store.delete(&mixed, &alice()).await.unwrap();
    assert_eq!(everything(&*store).await, BTreeSet::new());
}

async fn a_batch_may_repeat_itself(database: Database) {
    let store = database.open().await;
    let twice = policies(["web db tcp 5432", "web db tcp 5432", "web web tcp 1"]);
    store.create(&twice, &alice()).await.unwrap();
    assert_eq!(everything(&*store).await.len(), 2);
    store.delete(&twice, &alice()).await.unwrap();
    assert_eq!(everything(&*store).await.len(), 0);
    let before = store.last_updated().await.unwrap();
    store.create(&[], &alice()).await.unwrap();
    store.delete(&[], &alice()).await.unwrap();
    assert_eq!(store.last_updated().await.unwrap(), before, "an empty batch is no update");
}

async fn a_range_is_deleted_only_as_it_was_created(database: Database) {
    let store = database.open().await;
    store.create(&policies(["web db tcp 7000-7010"]), &alice()).await.unwrap();
    let near =
        ["web db tcp 7000", "web db tcp 7000-7009", "web db tcp 7001-7010", "web db udp 7000-7010"];
    store.delete(&policies(near), &alice()).await.unwrap();
    assert_eq!(everything(&*store).await.len(), 1);
}

async fn filters_select_by_either_end(database: Database) {
    let store = database.open().await;
    let all = policies(["a b tcp 1", "b c tcp 2", "c a udp 3-4", "d d tcp 5"]);
    store.create(&all, &alice()).await.unwrap();
    let apps = |text: &str| -> BTreeSet<_> {
        text.chars().map(|c| c.to_string().parse().unwrap()).collect()
    };
    let between = |sources: Option<&str>, destinations: Option<&str>| Filter::Between {
        sources: sources.map(apps),
        destinations: destinations.map(apps),
    };
    for filter in [
        Filter::All,
        Filter::Touching(apps("a")),
        Filter::Touching(apps("ad")),
        Filter::Touching(apps("x")),
        Filter::Touching(apps("")),
        between(Some("ab"), None),
        between(None, Some("a")),
        between(Some("ab"), Some("c")),
        between(Some(""), Some("a")),
        between(None, None),
    ] {
        let expected: BTreeSet<Policy> =
            all.iter().filter(|policy| filter.selects(policy)).cloned().collect();
        assert_eq!(select(&*store, &filter).await, expected, "{filter:?}");
    }
}

async fn names_are_taken_as_they_are(database: Database) {
    let store = database.open().await;
    let odd = [
        "7",
        "007",
        "null",
        "true",
        "[1]",
        "{\"a\":1}",
        "'; DROP TABLE policies; --",
        "Ünï\"\\",
        "A",
        "a",
        " ",
        "a ",
    ];
    let all: Vec<_> = odd
        .into_iter()
        .map(|name| Policy { source: name.parse().unwrap(), ..policy("x y tcp 1") })
        .collect();
    store.create(&all, &alice()).await.unwrap();
    assert_eq!(everything(&*store).await, all.iter().cloned().collect());
    for one in &all {
        let only =
            Filter::Between { sources: Some([one.source.clone()].into()), destinations: None };
        assert_eq!(select(&*store, &only).await, [one.clone()].into());
    }
    store.delete(&all, &alice()).await.unwrap();
    assert_eq!(everything(&*store).await, BTreeSet::new());
}

/// A NUL ends a text in some databases, where `web\0…` would pass for `web`.
async fn a_name_no_database_can_keep_is_nobodys(database: Database) {
    let store = database.open().await;
    let web = policies(["web db tcp 1"]);
    let version = store.create(&web, &alice()).await.unwrap();
    let named = |name: &str| Policy { source: name.parse().unwrap(), ..policy("x db tcp 1") };
    for like_web in ["web\0", "web\0x", "new\0x"] {
        let refused = store.create(&[named(like_web)], &alice()).await.unwrap_err();
        assert!(matches!(refused, StoreError::Nul { .. }), "{refused:?}");
        let refused = store.tag_for(like_web, "app").await.unwrap_err();
        assert!(matches!(refused, StoreError::Nul { .. }), "{refused:?}");
        assert_eq!(
            store.delete(&[named(like_web)], &alice()).await.unwrap(),
            version,
            "nothing changed"
        );
        let apps = BTreeSet::from([like_web.parse().unwrap()]);
        let between =
            Filter::Between { sources: Some(apps.clone()), destinations: Some(apps.clone()) };
        for filter in [Filter::Touching(apps), between] {
            assert_eq!(select(&*store, &filter).await, BTreeSet::new());
        }
    }
    assert_eq!(everything(&*store).await, web.into_iter().collect());
    assert_eq!(tags(&*store).await, ["web=1", "db=2"]);
}

async fn reopening_keeps_everything(database: Database) {
    let all = policies(["web db tcp 5432", "web cache udp 7000-7010"]);
    let store = database.open().await;
    let version = store.create(&all, &alice()).await.unwrap();
    let (listed, tags, updated) = (
        store.policies(&Filter::All).await.unwrap(),
        store.tags().await.unwrap(),
        store.last_updated().await.unwrap(),
    );
    store.close().await;
    assert!(store.ping().await.is_err(), "a closed store answers no more");

    let store = database.open_with_tags_of(2).await;
    assert_eq!(store.version().await.unwrap(), version);
    assert_eq!(store.policies(&Filter::All).await.unwrap(), listed);
    assert_eq!(store.tags().await.unwrap(), tags);
    assert_eq!(store.last_updated().await.unwrap(), updated);
    store.ping().await.unwrap();
}

async fn a_batch_of_thousands_is_one_change(database: Database) {
    let store = database.open_with_tags_of(2).await;
    let all: Vec<_> = (0..5000u32)
        .map(|n| Policy {
            source: format!("app-{}", n % 700).parse().unwrap(),
            destination: format!("app-{}", n % 300).parse().unwrap(),
            protocol: if n % 2 == 0 { Protocol::Tcp } else { Protocol::Udp },
            ports: (n + 1).to_string().parse().unwrap(),
        })
        .collect();
    let first = store.create(&all, &alice()).await.unwrap();
    assert_eq!(everything(&*store).await.len(), 5000);
    assert_eq!(store.tags().await.unwrap().len(), 700);
    let second = store.delete(&all, &alice()).await.unwrap();
    assert_eq!(second.revision.0, first.revision.0 + 1);
    assert_eq!(store.tags().await.unwrap(), []);
}
