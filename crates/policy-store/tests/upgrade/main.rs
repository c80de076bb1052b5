//! Databases of the systems we replace, taken over in place with their data, and given back
//! (spec/policy-server.md §9). Each schema is recorded in a file beside this one.

#![expect(clippy::unwrap_used, reason = "a test may end at the first surprise")]

mod given_back;
mod mariadb;
#[path = "../conformance/servers.rs"]
mod servers;
mod steps;
mod waiting;

use std::{collections::BTreeSet, sync::Arc};

use policy::TagLength;
use policy_store::{Actor, Changes, Filter, Options, PolicyStore, Schema, StoreUrl};
use servers::Created;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection};

const FROM_2016: [&str; 3] = ["cache db tcp 5432", "web cache udp 11211", "web db tcp 5432"];
const FROM_2024: [&str; 4] =
    ["cache db tcp 5432", "cache db tcp 7000-7010", "web cache udp 11211", "web db tcp 5432"];

/// Whose dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Postgres,
    MySql,
}

/// The file of this name in the dialect of `kind`.
macro_rules! recorded_sql {
    ($kind:expr, $name:literal) => {
        match $kind {
            Kind::Postgres => include_str!(concat!("postgres/", $name, ".sql")),
            Kind::MySql => include_str!(concat!("mysql/", $name, ".sql")),
        }
    };
}

/// Makes a test of a story for each kind of database.
macro_rules! stories {
    ($($story:ident),* $(,)?) => {
        mod postgres {
            $(
                #[tokio::test]
                async fn $story() {
                    super::$story(crate::Kind::Postgres).await;
                }
            )*
        }
        mod mysql {
            $(
                #[tokio::test]
                async fn $story() {
                    super::$story(crate::Kind::MySql).await;
                }
            )*
        }
    };
}

stories! {
    a_database_of_2016_is_taken_over_with_its_policies,
    a_database_in_the_midst_of_its_migrations_is_taken_over,
    tables_with_the_names_of_the_old_feature_are_left_alone_when_they_are_not_its,
    that_a_database_of_2024_has_groups_is_remembered,
    a_database_of_2024_is_taken_over_and_given_back,
    a_server_makes_no_tables_of_others,
    opening_again_and_many_at_once_changes_nothing,
    the_lock_of_a_migration_long_dead_is_broken,
}

/// A database with nothing in it.
async fn empty(kind: Kind) -> Created {
    match kind {
        Kind::Postgres => Created::on_postgres().await,
        Kind::MySql => Created::on_mysql().await,
    }
}

/// A database with a recorded schema.
async fn recorded(kind: Kind, sql: &str) -> Created {
    let created = empty(kind).await;
    created.run(sql).await;
    created
}

fn options(schema: Schema) -> Options {
    Options { schema, tag_length: TagLength::new(1).unwrap(), ..Options::default() }
}

async fn open(database: &Created, schema: Schema) -> Arc<dyn PolicyStore> {
    let url: StoreUrl = database.url.parse().unwrap();
    policy_store::open(&url, &options(schema)).await.unwrap()
}

async fn listed(store: &dyn PolicyStore) -> Vec<String> {
    let policies = store.policies(&Filter::All).await.unwrap();
    let texts: BTreeSet<_> =
        policies.iter().map(|tagged| tagged.policy.to_string().replace("-> ", "")).collect();
    texts.into_iter().collect()
}

async fn tags(store: &dyn PolicyStore) -> String {
    let tags = store.tags().await.unwrap();
    let texts: Vec<_> =
        tags.iter().map(|tag| format!("{}:{}={}", tag.kind, tag.id, tag.tag.id())).collect();
    texts.join(" ")
}

impl Created {
    /// The one number a question is answered with.
    async fn count(&self, question: &str) -> i64 {
        let question = AssertSqlSafe(question);
        if self.url.starts_with("mysql:") {
            let mut connection = MySqlConnection::connect(&self.url).await.unwrap();
            sqlx::query_scalar(question).fetch_one(&mut connection).await.unwrap()
        } else {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            sqlx::query_scalar(question).fetch_one(&mut connection).await.unwrap()
        }
    }
}

/// What every database must be able to do after it was taken over, and hold afterwards.
async fn works(store: &dyn PolicyStore) {
    let before = listed(store).await;
    let new = policy::Policy {
        source: "web".parse().unwrap(),
        destination: "new".parse().unwrap(),
        protocol: policy::Protocol::Tcp,
        ports: "1-65535".parse().unwrap(),
    };
    let actor = Actor::system("test");
    store.create(std::slice::from_ref(&new), &actor).await.unwrap();
    assert_eq!(listed(store).await.len(), before.len() + 1);
    assert!(tags(store).await.contains("app:new="));
    store.delete(&[new], &actor).await.unwrap();
    assert_eq!(listed(store).await, before);
    let state = store.state().await.unwrap();
    assert_eq!(state.policies.len(), before.len());
}

/// All 88, whatever was recorded before.
async fn migrations_are_recorded(database: &Created) {
    assert_eq!(database.count("SELECT count(*) FROM gorp_migrations").await, 88);
}

async fn a_database_of_2016_is_taken_over_with_its_policies(kind: Kind) {
    let database = recorded(kind, recorded_sql!(kind, "2016")).await;
    let store = open(&database, Schema::Whole).await;
    assert_eq!(listed(&*store).await, FROM_2016);
    assert_eq!(tags(&*store).await, "app:web=1 app:db=2 app:cache=4");
    works(&*store).await;
    migrations_are_recorded(&database).await;
    // The same port and protocol may be the end of a range now.
    database.run("INSERT INTO destinations (group_id, port, start_port, end_port, protocol) VALUES (2, 0, 5432, 5433, 'tcp')").await;
}

async fn a_database_in_the_midst_of_its_migrations_is_taken_over(kind: Kind) {
    let database = recorded(kind, recorded_sql!(kind, "egress")).await;
    let store = open(&database, Schema::Whole).await;
    assert_eq!(listed(&*store).await, FROM_2016);
    assert_eq!(tags(&*store).await, "app:web=1 app:db=2 app:cache=4");
    works(&*store).await;
    migrations_are_recorded(&database).await;
    // The tables of the feature that is no more are gone, so their names are free.
    database.run("CREATE TABLE apps (id INT); CREATE TABLE egress_policies (id INT)").await;
}

async fn tables_with_the_names_of_the_old_feature_are_left_alone_when_they_are_not_its(kind: Kind) {
    let database = recorded(kind, recorded_sql!(kind, "2016")).await;
    database.run("CREATE TABLE apps (id INT); CREATE TABLE spaces (id INT)").await;
    open(&database, Schema::Whole).await;
    database.run("INSERT INTO apps VALUES (1); INSERT INTO spaces VALUES (1)").await;
}

async fn that_a_database_of_2024_has_groups_is_remembered(kind: Kind) {
    let database = recorded(kind, recorded_sql!(kind, "2024")).await;
    let store = open(&database, Schema::Beside).await;
    database.run("DELETE FROM security_groups").await;
    assert_eq!(store.security_groups().await.unwrap(), Some(vec![]), "not that nobody knows");
}

async fn a_database_of_2024_is_taken_over_and_given_back(kind: Kind) {
    let database = recorded(kind, recorded_sql!(kind, "2024")).await;
    let store = open(&database, Schema::Beside).await;
    assert_eq!(listed(&*store).await, FROM_2024);
    assert_eq!(tags(&*store).await, "app:web=1 app:db=2 router:INGRESS=3 app:cache=4");
    let groups = store.security_groups().await.unwrap().unwrap();
    assert_eq!(
        groups.iter().map(|row| (row.id, row.group.guid.as_str())).collect::<Vec<_>>(),
        [(1, "sg-1"), (2, "sg-2")]
    );
    assert_eq!(groups[0].group.running_spaces, ["space-7"]);
    assert_eq!(groups[1].group.rules, "", "what is missing is empty");
    let updated = store.last_updated().await.unwrap();
    assert_eq!(updated, 1_729_786_424_123_456_000, "nothing was changed by looking");
    works(&*store).await;
    assert!(store.last_updated().await.unwrap() > updated);

    // The old server runs again, beside ours.
    let version = store.version().await.unwrap();
    database.run(recorded_sql!(kind, "old_server_creates")).await;
    assert_eq!(store.changes_since(&version).await.unwrap(), Changes::Forgotten);
    let all = listed(&*store).await;
    assert_eq!(all.len(), 6);
    assert!(all.contains(&"late db tcp 80-90".to_owned()));
    assert!(tags(&*store).await.contains("app:late=5"));
    works(&*store).await;
    // And what it wrote can be deleted here.
    let late = Filter::Touching(BTreeSet::from(["late".parse().unwrap()]));
    let late: Vec<_> =
        store.policies(&late).await.unwrap().into_iter().map(|tagged| tagged.policy).collect();
    store.delete(&late, &Actor::system("test")).await.unwrap();
    assert_eq!(listed(&*store).await, FROM_2024);
    migrations_are_recorded(&database).await;
}

async fn a_server_makes_no_tables_of_others(kind: Kind) {
    let database = empty(kind).await;
    let url: StoreUrl = database.url.parse().unwrap();
    let Err(refused) = policy_store::open(&url, &options(Schema::Beside)).await else {
        panic!("it opened a database without tables");
    };
    let text = refused.to_string();
    assert!(text.contains("run `policy-server migrate` first"), "{text}");
    assert!(!text.contains("netman:netman") && !text.contains("password"), "a password: {text}");
}

async fn opening_again_and_many_at_once_changes_nothing(kind: Kind) {
    let database = empty(kind).await;
    let opening: Vec<_> = (0..6)
        .map(|_| {
            let url: StoreUrl = database.url.parse().unwrap();
            tokio::spawn(async move {
                policy_store::open(&url, &options(Schema::Whole)).await.map(drop)
            })
        })
        .collect();
    for opening in opening {
        opening.await.unwrap().unwrap();
    }
    migrations_are_recorded(&database).await;
    let store = open(&database, Schema::Beside).await;
    works(&*store).await;
    let version = store.version().await.unwrap();
    let again = open(&database, Schema::Whole).await;
    assert_eq!(again.version().await.unwrap(), version);
}

/// A migration that was killed leaves its lock; another waits for it, but not for ever.
async fn the_lock_of_a_migration_long_dead_is_broken(kind: Kind) {
    let database = recorded(kind, recorded_sql!(kind, "2016")).await;
    let lock = match kind {
        Kind::Postgres => {
            "CREATE TABLE gorp_lock (lock TEXT PRIMARY KEY, acquired_at TIMESTAMP WITH TIME ZONE);
             INSERT INTO gorp_lock VALUES ('sql-migrate', now() - interval '2 minutes')"
        }
        Kind::MySql => {
            "CREATE TABLE gorp_lock (`lock` VARCHAR(255) PRIMARY KEY, acquired_at DATETIME);
             INSERT INTO gorp_lock VALUES ('sql-migrate', UTC_TIMESTAMP() - INTERVAL 2 MINUTE)"
        }
    };
    database.run(lock).await;
    open(&database, Schema::Whole).await;
    database.run("INSERT INTO gorp_lock VALUES ('sql-migrate', now())").await;
}
