//! One story, told to every backend. A story gets a [`Database`] that is new and its own, opens it
//! as often as it likes, and relies on nothing but the promises written on the traits.

#![expect(clippy::unwrap_used, reason = "a test may end at the first surprise")]

mod leases;
mod mysql;
mod policies;
mod revisions;
mod tags;
mod writers;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use policy::{Policy, Protocol, TagLength};
use policy_store::{Actor, Filter, Options, PolicyStore, StoreUrl};

/// A database of one story's own; gone with the story, or with the server the tests were given.
pub(crate) struct Database {
    url: StoreUrl,
    _dir: Option<tempfile::TempDir>,
}

impl Database {
    async fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { url: StoreUrl::Sqlite(dir.path().join("netman.db")), _dir: Some(dir) }
    }

    async fn mysql() -> Self {
        Self { url: StoreUrl::MySql(mysql::new_database().await), _dir: None }
    }

    /// Opens it with tags of one byte: 255 of them.
    pub(crate) async fn open(&self) -> Arc<dyn PolicyStore> {
        self.open_with_tags_of(1).await
    }

    pub(crate) async fn open_with_tags_of(&self, bytes: i64) -> Arc<dyn PolicyStore> {
        let tag_length = TagLength::new(bytes).unwrap();
        self.open_with(&Options { tag_length, log_kept: 1000, ..Options::default() }).await
    }

    pub(crate) async fn open_with(&self, options: &Options) -> Arc<dyn PolicyStore> {
        policy_store::open(&self.url, options).await.unwrap()
    }
}

/// Makes a test of a story for each backend.
macro_rules! stories {
    ($($story:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $story() {
                    super::$story(crate::Database::sqlite().await).await;
                }
            )*
        }

        mod mysql {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $story() {
                    super::$story(crate::Database::mysql().await).await;
                }
            )*
        }
    };
}
pub(crate) use stories;

/// `web db tcp 8080` or `web db udp 7000-7010`.
pub(crate) fn policy(text: &str) -> Policy {
    let words: Vec<_> = text.split_whitespace().collect();
    let [source, destination, protocol, ports] = words[..] else {
        panic!("{text:?} is not SOURCE DESTINATION PROTOCOL PORTS");
    };
    Policy {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        protocol: protocol.parse::<Protocol>().unwrap(),
        ports: ports.parse().unwrap(),
    }
}

/// Somebody who changes policies.
pub(crate) fn alice() -> Actor {
    Actor {
        subject: "alice".to_owned(),
        address: Some([10, 0, 0, 7].into()),
        request: "4bf5-request".to_owned(),
    }
}

pub(crate) fn policies<const N: usize>(texts: [&str; N]) -> Vec<Policy> {
    texts.into_iter().map(policy).collect()
}

/// Every policy the store holds.
pub(crate) async fn everything(store: &dyn PolicyStore) -> BTreeSet<Policy> {
    select(store, &Filter::All).await
}

pub(crate) async fn select(store: &dyn PolicyStore, filter: &Filter) -> BTreeSet<Policy> {
    let listed = store.policies(filter).await.unwrap();
    let set: BTreeSet<_> = listed.iter().map(|tagged| tagged.policy.clone()).collect();
    assert_eq!(set.len(), listed.len(), "a policy was listed twice");
    set
}

/// The tags in use as `id=number`, in order.
pub(crate) async fn tags(store: &dyn PolicyStore) -> Vec<String> {
    let tags = store.tags().await.unwrap();
    tags.into_iter().map(|tag| format!("{}={}", tag.id, tag.tag.id())).collect()
}

/// A moment, in seconds after some beginning.
pub(crate) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}
