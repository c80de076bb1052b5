//! One story, told to every backend. A story gets a [`Database`] that is new and its own, opens it
//! as often as it likes, and relies on nothing but the promises written on the traits.

#![expect(clippy::unwrap_used, reason = "a test may end at the first surprise")]

mod audit;
mod beside;
mod deadlocks;
mod group_receipts;
mod hints;
mod holding;
mod leadership;
mod leases;
mod life;
mod looks;
mod mysql;
mod policies;
mod quarantine;
mod reading;
mod receipts;
mod revisions;
mod security_groups;
mod sequence;
mod servers;
mod tags;
mod writers;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use policy::{Policy, Protocol, TagLength};
use policy_store::{Actor, Filter, Options, PolicyStore, StoreUrl};
use sqlx::{AssertSqlSafe, Connection, Executor, SqliteConnection};

/// A database of one story's own; gone with the story.
pub(crate) struct Database {
    url: StoreUrl,
    home: Home,
}

/// Where it is, and how it goes.
enum Home {
    Directory { _dir: tempfile::TempDir },
    Postgres(servers::Created),
    MySql(servers::Created),
}

impl Database {
    async fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = StoreUrl::Sqlite(dir.path().join("netman.db"));
        Self { url, home: Home::Directory { _dir: dir } }
    }

    async fn postgres() -> Self {
        let created = servers::Created::on_postgres().await;
        Self { url: created.url.parse().unwrap(), home: Home::Postgres(created) }
    }

    async fn mysql() -> Self {
        let created = servers::Created::on_mysql().await;
        Self { url: created.url.parse().unwrap(), home: Home::MySql(created) }
    }

    /// Another database of the same kind.
    pub(crate) async fn another(&self) -> Self {
        match &self.home {
            Home::Directory { .. } => Self::sqlite().await,
            Home::Postgres(_) => Self::postgres().await,
            Home::MySql(_) => Self::mysql().await,
        }
    }

    /// Runs statements as an older server would, that knows nothing of ours.
    pub(crate) async fn by_hand(&self, statements: &str) {
        match &self.url {
            StoreUrl::Sqlite(path) => run_on_sqlite(path, statements).await,
            _ => {
                let (Home::Postgres(created) | Home::MySql(created)) = &self.home else {
                    panic!("no such server")
                };
                created.run(statements).await;
            }
        }
    }

    /// Moves the time of the last update as an older server does. Backwards: other servers have other
    /// clocks and time zones.
    pub(crate) async fn move_the_time(&self) {
        let statement = match &self.home {
            Home::Directory { .. } => {
                "UPDATE policies_info SET last_updated = last_updated - 3600000000"
            }
            Home::Postgres(_) => {
                "UPDATE policies_info SET last_updated = last_updated - interval '1 hour'"
            }
            Home::MySql(_) => {
                "UPDATE policies_info SET last_updated = last_updated - INTERVAL 1 HOUR"
            }
        };
        self.by_hand(statement).await;
    }

    /// Moves the time of the last update ahead by an hour, and what we know of it with it.
    pub(crate) async fn move_our_time_ahead(&self) {
        let hour = match &self.home {
            Home::Directory { .. } => "3600000000",
            Home::Postgres(_) => "interval '1 hour'",
            Home::MySql(_) => "INTERVAL 1 HOUR",
        };
        let statements = format!(
            "UPDATE policies_info SET last_updated = last_updated + {hour};
             UPDATE netman_revision SET explained = (SELECT last_updated FROM policies_info)"
        );
        self.by_hand(&statements).await;
    }

    /// The moment so many hours ago, or to come, as our tables keep it, in SQL.
    pub(crate) fn hours_ago(&self, hours: i32) -> String {
        match &self.home {
            Home::Directory { .. } => format!("(unixepoch() - 3600 * {hours}) * 1000"),
            Home::Postgres(_) => format!("now() - {hours} * interval '1 hour'"),
            Home::MySql(_) => format!("(UNIX_TIMESTAMP() - 3600 * {hours}) * 1000"),
        }
    }

    /// Holds the lock that all writers take, as long as what it returns is kept; `None` where it is the
    /// whole file that is locked.
    pub(crate) async fn hold_the_lock(&self) -> Option<holding::Holding> {
        match &self.home {
            Home::Directory { .. } => None,
            Home::Postgres(created) | Home::MySql(created) => {
                Some(holding::Holding::on(&created.url).await)
            }
        }
    }

    /// Opens it with tags of one byte: 255 of them.
    pub(crate) async fn open(&self) -> Arc<dyn PolicyStore> {
        self.open_with_tags_of(1).await
    }

    pub(crate) async fn open_with_tags_of(&self, bytes: i64) -> Arc<dyn PolicyStore> {
        let tag_length = TagLength::new(bytes).unwrap();
        self.open_with(&Options { tag_length, ..one_byte() }).await
    }

    pub(crate) async fn open_with(&self, options: &Options) -> Arc<dyn PolicyStore> {
        policy_store::open(&self.url, options).await.unwrap()
    }
}

/// What a story opens its database with, if it says nothing else.
pub(crate) fn one_byte() -> Options {
    Options { tag_length: TagLength::new(1).unwrap(), log_kept: 1000, ..Options::default() }
}

/// Makes a test of a story for each backend.
macro_rules! stories {
    ($($story:ident),* $(,)?) => {
        crate::stories!(on sqlite: $($story),*);
        crate::stories!(on postgres: $($story),*);
        crate::stories!(on mysql: $($story),*);
    };
    (on $database:ident: $($story:ident),*) => {
        mod $database {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $story() {
                    super::$story(crate::Database::$database().await).await;
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

async fn run_on_sqlite(path: &Path, statements: &str) {
    let mut connection =
        SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    connection.execute(sqlx::raw_sql(AssertSqlSafe(statements))).await.unwrap();
    connection.close().await.unwrap();
}
