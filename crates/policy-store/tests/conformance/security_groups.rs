use policy::SecurityGroup;
use policy_store::{Change, Changes, PolicyStore};

use crate::{Database, stories};

stories! {
    groups_keep_their_numbers_as_long_as_they_exist,
    only_what_differs_is_a_change,
    groups_are_kept_as_they_are,
    that_there_are_none_is_known_once_somebody_has_said_so,
}

pub(crate) fn group(guid: &str) -> SecurityGroup {
    SecurityGroup {
        guid: guid.to_owned(),
        name: format!("group {guid}"),
        rules: r#"[{"protocol":"udp","destination":"0.0.0.0/0","ports":"53"}]"#.to_owned(),
        staging_default: false,
        running_default: true,
        staging_spaces: Vec::new(),
        running_spaces: vec!["space-2".to_owned(), "space-1".to_owned()],
    }
}

async fn replace(store: &dyn PolicyStore, guids: &[&str]) -> u64 {
    let groups: Vec<_> = guids.iter().map(|guid| group(guid)).collect();
    store.replace_security_groups(&groups).await.unwrap().revision.0
}

async fn numbered(store: &dyn PolicyStore) -> Vec<(u64, String)> {
    let groups = store.security_groups().await.unwrap().unwrap();
    groups.into_iter().map(|row| (row.id, row.group.guid)).collect()
}

async fn groups_keep_their_numbers_as_long_as_they_exist(database: Database) {
    let store = database.open().await;
    let expect = |groups: &[(u64, &str)]| -> Vec<(u64, String)> {
        groups.iter().map(|(id, guid)| (*id, (*guid).to_owned())).collect()
    };
    replace(&*store, &["c", "a", "b"]).await;
    assert_eq!(numbered(&*store).await, expect(&[(1, "c"), (2, "a"), (3, "b")]));
    replace(&*store, &["b", "d", "c"]).await;
    assert_eq!(numbered(&*store).await, expect(&[(1, "c"), (3, "b"), (4, "d")]));
    replace(&*store, &[]).await;
    assert_eq!(numbered(&*store).await, []);
    replace(&*store, &["a"]).await;
    let again = numbered(&*store).await;
    assert!(again[0].0 > 4, "a number is never given twice: {again:?}");
}

async fn only_what_differs_is_a_change(database: Database) {
    let store = database.open().await;
    let start = store.version().await.unwrap();
    assert_eq!(replace(&*store, &["a", "b"]).await, 1);
    assert_eq!(replace(&*store, &["b", "a"]).await, 1, "their order says nothing");
    let mut changed = [group("a"), group("b")];
    changed[1].staging_spaces.push("space-3".to_owned());
    let second = store.replace_security_groups(&changed).await.unwrap();
    assert_eq!(second.revision.0, 2);
    assert_eq!(store.security_groups().await.unwrap().unwrap()[1].group, changed[1]);

    let Changes::Log(log) = store.changes_since(&start).await.unwrap() else {
        panic!("the log is short");
    };
    assert!(log.iter().all(|(_, change)| *change == Change::SecurityGroupsReplaced));
    assert_eq!(log.iter().map(|(revision, _)| revision.0).collect::<Vec<_>>(), [1, 2]);
    let state = store.state().await.unwrap();
    assert_eq!((state.version, state.security_groups.unwrap().len()), (second, 2));
}

async fn groups_are_kept_as_they_are(database: Database) {
    let store = database.open().await;
    let odd = SecurityGroup {
        name: "a \"name\"; DROP TABLE security_groups; -- Ünï".to_owned(),
        rules: "[{\"description\":\"\\u003ca\\u003e   two  spaces\\n\"}]".to_owned(),
        staging_default: true,
        running_default: false,
        staging_spaces: vec!["b".to_owned(), "a".to_owned(), "b".to_owned()],
        running_spaces: Vec::new(),
        ..group("odd")
    };
    let large = SecurityGroup { rules: format!("[{}]", "1,".repeat(200_000)), ..group("large") };
    store.replace_security_groups(&[odd.clone(), large.clone()]).await.unwrap();
    let stored: Vec<_> =
        store.security_groups().await.unwrap().unwrap().into_iter().map(|row| row.group).collect();
    assert!(stored == [odd, large], "a group came back changed");
}

async fn that_there_are_none_is_known_once_somebody_has_said_so(database: Database) {
    let store = database.open().await;
    let known = || async {
        let (list, state) = (store.security_groups().await.unwrap(), store.state().await.unwrap());
        assert_eq!(list, state.security_groups);
        list.map(|groups| groups.len())
    };
    assert_eq!(known().await, None);
    assert_eq!(replace(&*store, &[]).await, 1, "it is told to those who wait");
    assert_eq!(known().await, Some(0));
    assert_eq!(replace(&*store, &[]).await, 1);
    replace(&*store, &["a"]).await;
    replace(&*store, &[]).await;
    assert_eq!(known().await, Some(0));
}
