use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use policy::{Revision, SecurityGroup};
use policy_store::{Change, Changes, LeaseKind, LeasePool, PolicyStore};

use crate::{Database, alice, at, policies, stories};

stories! {
    whatever_changes_takes_its_place_in_one_sequence,
}

const WRITERS: u8 = 64;
const ROUNDS: u8 = 2;

/// 64 writers over two servers, and somebody who follows them on a third.
async fn whatever_changes_takes_its_place_in_one_sequence(database: Database) {
    let stores = [database.open_with_tags_of(2).await, database.open_with_tags_of(2).await];
    let follower = database.open_with_tags_of(2).await;
    let start = follower.version().await.unwrap();
    let writing: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(stores[usize::from(writer) % 2].clone(), writer)))
        .collect();

    let (mut seen, mut log) = (start.clone(), Vec::new());
    let mut done = false;
    while !done {
        done = writing.iter().all(tokio::task::JoinHandle::is_finished);
        let Changes::Log(more) = follower.changes_since(&seen).await.unwrap() else {
            panic!("the log was lost");
        };
        if let Some((last, _)) = more.last() {
            seen.revision = *last;
        }
        log.extend(more);
    }

    let mut returned = BTreeSet::new();
    for writing in writing {
        let revisions = writing.await.unwrap();
        assert!(revisions.is_sorted(), "a writer's changes came out of order");
        for revision in revisions {
            assert!(returned.insert(revision), "{revision} was given twice");
        }
    }
    let whole = follower.changes_since(&start).await.unwrap();
    assert_eq!(Changes::Log(log.clone()), whole, "what is read in pieces is the whole");

    let mut kinds: BTreeMap<Revision, BTreeSet<&str>> = BTreeMap::new();
    let mut tags = BTreeSet::new();
    for (revision, change) in &log {
        if let Change::TagGiven(given) = change {
            assert!(tags.insert(*revision), "two tags at one revision");
            assert!(given.id.starts_with("router-"), "{given:?}");
        }
        kinds.entry(*revision).or_default().insert(kind(change));
    }
    assert!(kinds.values().all(|kinds| kinds.len() == 1), "one revision, one change: {kinds:?}");
    assert_eq!(tags.len(), usize::from(WRITERS * ROUNDS));
    assert!(tags.is_disjoint(&returned));
    let taken: Vec<_> = returned.union(&tags).copied().collect();
    let all: Vec<_> = (1..=taken.len() as u64).map(Revision).collect();
    assert_eq!(taken, all, "none is missing");
    assert_eq!(kinds.into_keys().collect::<Vec<_>>(), all, "and each is told of");
    assert_eq!(follower.version().await.unwrap(), seen);
}

/// Changes everything there is; returns the revisions it was told.
async fn write(store: Arc<dyn PolicyStore>, writer: u8) -> Vec<Revision> {
    let (mut revisions, pool) = (Vec::new(), LeasePool::default());
    let cell = [10, 0, 0, writer].into();
    for round in 0..ROUNDS {
        let mine = policies([&format!("app-{writer} db-{round} tcp 1"), "app hub udp 5-9"]);
        revisions.push(store.create(&mine[..1], &alice()).await.unwrap().revision);
        let lease = store.acquire_lease(&pool, cell, LeaseKind::Block, at(0)).await.unwrap();
        revisions.push(lease.1.revision);
        store.tag_for(&format!("router-{writer}-{round}"), "router").await.unwrap();
        let groups = [group(&format!("sg-{writer}-{round}"))];
        revisions.push(store.replace_security_groups(&groups).await.unwrap().revision);
        revisions.push(store.release_lease(cell).await.unwrap().revision);
        revisions.push(store.delete(&mine[..1], &alice()).await.unwrap().revision);
        // What changes nothing takes no revision.
        store.delete(&mine, &alice()).await.unwrap();
        store.release_lease(cell).await.unwrap();
        store.tag_for(&format!("router-{writer}-{round}"), "router").await.unwrap();
    }
    revisions
}

fn group(guid: &str) -> SecurityGroup {
    SecurityGroup {
        guid: guid.to_owned(),
        name: "of a writer".to_owned(),
        rules: "[]".to_owned(),
        staging_default: false,
        running_default: true,
        staging_spaces: Vec::new(),
        running_spaces: Vec::new(),
    }
}

fn kind(change: &Change) -> &'static str {
    match change {
        Change::PolicyAdded(_) | Change::PolicyRemoved(_) => "policy",
        Change::LeaseAdded(_) | Change::LeaseRemoved(_) => "lease",
        Change::SecurityGroupsReplaced => "groups",
        Change::TagGiven(_) => "tag",
    }
}
