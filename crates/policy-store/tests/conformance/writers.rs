use std::collections::{BTreeMap, BTreeSet};

use policy::{Policy, Revision};
use policy_store::{Changes, Filter};

use crate::{Database, alice, everything, policy, stories};

stories! {
    many_writers_lose_nothing_and_share_no_tag,
    the_same_policy_created_by_many_at_once_exists_once,
    a_new_name_asked_for_by_many_at_once_gets_one_tag,
    a_dropped_call_leaves_all_or_nothing,
    one_bad_request_among_many_fails_alone,
    writers_on_two_servers_lose_nothing_and_share_no_tag,
}

/// Odd writers keep their policies; even ones take half of theirs back. All of them use some apps
/// in common, so tags come, go and come back while others look for one.
async fn many_writers_lose_nothing_and_share_no_tag(database: Database) {
    let store = database.open().await;
    let mut writing = Vec::new();
    for writer in 0..16u32 {
        let store = store.clone();
        writing.push(tokio::spawn(async move {
            let mut kept = Vec::new();
            for round in 0..12u32 {
                let mine = of_writer(writer, round);
                store.create(&mine, &alice()).await.unwrap();
                if writer % 2 == 0 && round % 2 == 0 {
                    store.delete(&mine, &alice()).await.unwrap();
                } else {
                    kept.extend(mine);
                }
            }
            kept
        }));
    }
    let mut expected = BTreeSet::new();
    for writing in writing {
        expected.extend(writing.await.unwrap());
    }
    assert_eq!(everything(&*store).await, expected);
    assert_eq!(store.version().await.unwrap().revision, Revision(16 * 12 + 8 * 6));

    let listed = store.tags().await.unwrap();
    let numbers: BTreeSet<_> = listed.iter().map(|tag| tag.tag).collect();
    assert_eq!(numbers.len(), listed.len(), "two apps share a tag");
    let of: BTreeMap<_, _> = listed.iter().map(|tag| (tag.id.as_str(), tag.tag)).collect();
    for tagged in store.policies(&Filter::All).await.unwrap() {
        assert_eq!(of[tagged.policy.source.as_str()], tagged.source_tag);
        assert_eq!(of[tagged.policy.destination.as_str()], tagged.destination_tag);
    }
    let named: BTreeSet<_> =
        expected.iter().flat_map(|p| [p.source.as_str(), p.destination.as_str()]).collect();
    assert_eq!(of.keys().copied().collect::<BTreeSet<_>>(), named, "exactly the named have tags");
}

fn of_writer(writer: u32, round: u32) -> Vec<Policy> {
    let ports = format!("{}", 1 + writer * 100 + round).parse().unwrap();
    let app = |name: String| name.parse().unwrap();
    vec![
        Policy {
            source: app(format!("shared-{}", round % 5)),
            destination: app(format!("w{writer}")),
            ports,
            ..policy("x x tcp 1")
        },
        Policy {
            source: app(format!("w{writer}-{}", round % 4)),
            destination: app("hub".into()),
            ports,
            ..policy("x x udp 1")
        },
    ]
}

async fn the_same_policy_created_by_many_at_once_exists_once(database: Database) {
    let store = database.open().await;
    let creating: Vec<_> = (0..16)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(
                async move { store.create(&[policy("web db tcp 1")], &alice()).await.unwrap() },
            )
        })
        .collect();
    for creating in creating {
        assert_eq!(creating.await.unwrap().revision, Revision(1), "only one changed anything");
    }
    assert_eq!(everything(&*store).await.len(), 1);
}

async fn a_new_name_asked_for_by_many_at_once_gets_one_tag(database: Database) {
    let store = database.open().await;
    let asking: Vec<_> = (0..16)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.tag_for("INGRESS", "router").await.unwrap() })
        })
        .collect();
    for asking in asking {
        assert_eq!(asking.await.unwrap().id(), 1);
    }
}

/// Callers hang up. Whatever the moment, a batch is there whole or not at all.
async fn a_dropped_call_leaves_all_or_nothing(database: Database) {
    let store = database.open().await;
    for round in 0..40u32 {
        let batch: Vec<_> = (1..=20u32)
            .map(|port| Policy {
                source: format!("round-{round}").parse().unwrap(),
                ports: port.to_string().parse().unwrap(),
                ..policy("x hub tcp 1")
            })
            .collect();
        {
            // Dropped after a number of polls that differs from round to round.
            let alice = alice();
            let mut call = std::pin::pin!(store.create(&batch, &alice));
            let mut polls = 0;
            std::future::poll_fn(|context| {
                polls += 1;
                if call.as_mut().poll(context).is_ready() || polls > round {
                    std::task::Poll::Ready(())
                } else {
                    std::task::Poll::Pending
                }
            })
            .await;
        }
        let only =
            Filter::Between { sources: Some([batch[0].source.clone()].into()), destinations: None };
        let there = store.policies(&only).await.unwrap().len();
        assert!(there == 0 || there == 20, "{there} of 20 policies are there");
        store.create(&batch, &alice()).await.expect("the writer is free again");
    }
}

/// Requests that come together may share a transaction, but not their fate.
async fn one_bad_request_among_many_fails_alone(database: Database) {
    let store = database.open().await;
    store.tag_for("router", "router").await.unwrap();
    let creating: Vec<_> = (0..48u32)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let source =
                    if number % 8 == 0 { "router".into() } else { format!("app-{number}") };
                let policy = Policy { source: source.parse().unwrap(), ..policy("x db tcp 1") };
                (number, store.create(&[policy], &alice()).await)
            })
        })
        .collect();
    let mut revisions = BTreeSet::new();
    for creating in creating {
        let (number, created) = creating.await.unwrap();
        match created {
            Ok(version) => {
                assert!(revisions.insert(version.revision), "a revision was given twice");
            }
            Err(error) => assert!(number % 8 == 0, "{number}: {error:?}"),
        }
    }
    assert_eq!(revisions.len(), 42);
    assert_eq!(everything(&*store).await.len(), 42);
    let last = store.version().await.unwrap().revision;
    assert_eq!(last, Revision(43), "and one for the tag");
}

/// 64 writers over two servers, which queue in the database only.
async fn writers_on_two_servers_lose_nothing_and_share_no_tag(database: Database) {
    let stores = [database.open_with_tags_of(2).await, database.open_with_tags_of(2).await];
    let start = stores[0].version().await.unwrap();
    let mut writing = Vec::new();
    for writer in 0..64u32 {
        let store = stores[writer as usize % 2].clone();
        writing.push(tokio::spawn(async move {
            let (mut kept, mut revisions) = (Vec::new(), Vec::new());
            for round in 0..4u32 {
                let mine = of_writer(writer, round);
                revisions.push(store.create(&mine, &alice()).await.unwrap().revision);
                if (writer + round) % 3 == 0 {
                    revisions.push(store.delete(&mine, &alice()).await.unwrap().revision);
                } else {
                    kept.extend(mine);
                }
            }
            assert!(revisions.is_sorted(), "a writer's changes came out of order");
            (kept, revisions)
        }));
    }
    let (mut expected, mut revisions) = (BTreeSet::new(), Vec::new());
    for writing in writing {
        let (kept, taken) = writing.await.unwrap();
        expected.extend(kept);
        revisions.extend(taken);
    }
    revisions.sort();
    let all: Vec<_> = (1..=revisions.len() as u64).map(Revision).collect();
    assert_eq!(revisions, all, "each change has a revision of its own, and none is missing");
    for store in &stores {
        assert_eq!(everything(&**store).await, expected);
        let Changes::Log(log) = store.changes_since(&start).await.unwrap() else {
            panic!("the log is short");
        };
        let told: BTreeSet<_> = log.iter().map(|(revision, _)| *revision).collect();
        assert_eq!(told.into_iter().collect::<Vec<_>>(), all);
    }
    let listed = stores[0].tags().await.unwrap();
    let numbers: BTreeSet<_> = listed.iter().map(|tag| tag.tag).collect();
    assert_eq!(numbers.len(), listed.len(), "two apps share a tag");
    let named: BTreeSet<_> =
        expected.iter().flat_map(|p| [p.source.as_str(), p.destination.as_str()]).collect();
    assert_eq!(listed.iter().map(|tag| tag.id.as_str()).collect::<BTreeSet<_>>(), named);
}
