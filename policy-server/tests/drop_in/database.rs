//! Databases on the servers that `scripts/test` starts.

use std::{env, time::Instant};

use reqwest::Url;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection};
use uuid::Uuid;

use crate::program::DEADLINE;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    MySql,
}

/// A database of one test's own; it goes with the test, whoever is connected to it then.
pub(crate) struct Database {
    pub kind: Kind,
    pub name: String,
    administrator: Url,
}

impl Kind {
    fn variable(self) -> &'static str {
        match self {
            Self::Postgres => "NETMAN_TEST_POSTGRES",
            Self::MySql => "NETMAN_TEST_MYSQL",
        }
    }

    /// As configuration files call it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MySql => "mysql",
        }
    }
}

impl Database {
    /// Only a name so far.
    pub(crate) fn planned(kind: Kind) -> Self {
        let variable = kind.variable();
        let administrator = env::var(variable).unwrap_or_else(|_| {
            panic!("{variable} names no server to test on; scripts/test starts one")
        });
        let name = format!("drop_in_{}", Uuid::new_v4().simple());
        Self { kind, name, administrator: administrator.parse().unwrap() }
    }

    pub(crate) async fn new(kind: Kind) -> Self {
        let planned = Self::planned(kind);
        planned.create().await;
        planned
    }

    pub(crate) async fn create(&self) {
        execute(&self.administrator, &format!("CREATE DATABASE {}", self.name)).await;
    }

    /// The object `database` of a configuration file.
    pub(crate) fn config(&self) -> Value {
        let server = &self.administrator;
        json!({
            "type": self.kind.as_str(),
            "user": server.username(),
            "password": server.password().unwrap(),
            "host": server.host_str().unwrap(),
            "port": server.port().unwrap(),
            "timeout": 10,
            "database_name": self.name,
            "require_ssl": false,
            "ca_cert": "",
        })
    }

    /// As the drivers of 2016 want it.
    pub(crate) fn connection_string(&self) -> String {
        let server = &self.administrator;
        let (user, password) = (server.username(), server.password().unwrap());
        let address = format!("{}:{}", server.host_str().unwrap(), server.port().unwrap());
        match self.kind {
            Kind::Postgres => {
                format!("postgres://{user}:{password}@{address}/{}?sslmode=disable", self.name)
            }
            Kind::MySql => format!("{user}:{password}@tcp({address})/{}", self.name),
        }
    }

    fn url(&self) -> Url {
        let mut url = self.administrator.clone();
        url.set_path(&self.name);
        url
    }

    /// Does what an old server would.
    pub(crate) async fn execute(&self, statement: &str) {
        execute(&self.url(), statement).await;
    }

    /// The number that a query for one yields.
    pub(crate) async fn number(&self, query: &str) -> i64 {
        number(&self.url(), query).await
    }

    /// Runs statements in a connection of their own. What they lock is locked for as long as that lives.
    pub(crate) async fn run(&self, statements: &str) -> Box<dyn Send> {
        let (url, statements) = (self.url(), sqlx::raw_sql(AssertSqlSafe(statements)));
        match self.kind {
            Kind::Postgres => {
                let mut connection = PgConnection::connect(url.as_str()).await.unwrap();
                connection.execute(statements).await.unwrap();
                Box::new(connection)
            }
            Kind::MySql => {
                let mut connection = MySqlConnection::connect(url.as_str()).await.unwrap();
                connection.execute(statements).await.unwrap();
                Box::new(connection)
            }
        }
    }

    /// How many are connected to it.
    pub(crate) async fn connections(&self) -> i64 {
        let name = &self.name;
        let query = match self.kind {
            Kind::Postgres => {
                format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'")
            }
            Kind::MySql => {
                format!("SELECT count(*) FROM information_schema.processlist WHERE db = '{name}'")
            }
        };
        number(&self.administrator, &query).await
    }

    /// Waits until the server has noticed that the last connection is closed.
    pub(crate) async fn until_nobody_is_connected(&self) {
        let started = Instant::now();
        while self.connections().await > 0 {
            assert!(started.elapsed() < DEADLINE, "somebody is still connected to {}", self.name);
        }
    }

    /// How many tables of cf-networking's it has.
    pub(crate) async fn tables(&self) -> i64 {
        let schema = match self.kind {
            Kind::Postgres => "current_schema()",
            Kind::MySql => "database()",
        };
        let names = "('policies', 'destinations', 'groups', 'gorp_migrations')";
        self.number(&format!(
            "SELECT count(*) FROM information_schema.tables
             WHERE table_schema = {schema} AND table_name IN {names}"
        ))
        .await
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (administrator, name) = (self.administrator.clone(), self.name.clone());
        // A test's runtime is about to end, and may not be blocked.
        let dropped = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(drop_database(&administrator, &name));
        })
        .join();
        if !std::thread::panicking() {
            dropped.unwrap();
        }
    }
}

/// MySQL waits for transactions of others instead, which a relay that is not read any more may hold.
async fn drop_database(administrator: &Url, name: &str) {
    let drop = format!("DROP DATABASE IF EXISTS {name}");
    if administrator.scheme() != "mysql" {
        return execute(administrator, &format!("{drop} WITH (FORCE)")).await;
    }
    let mut connection = MySqlConnection::connect(administrator.as_str()).await.unwrap();
    let connected = "SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE db = ?";
    let connected: Vec<i64> =
        sqlx::query_scalar(connected).bind(name).fetch_all(&mut connection).await.unwrap();
    for id in connected {
        // It may have gone by itself.
        let kill = AssertSqlSafe(format!("KILL {id}"));
        let _ = connection.execute(sqlx::raw_sql(kill)).await;
    }
    connection.execute(sqlx::raw_sql(AssertSqlSafe(drop))).await.unwrap();
    connection.close().await.unwrap();
}

async fn execute(url: &Url, statement: &str) {
    let statement = sqlx::raw_sql(AssertSqlSafe(statement));
    if url.scheme() == "mysql" {
        let mut connection = MySqlConnection::connect(url.as_str()).await.unwrap();
        connection.execute(statement).await.unwrap();
        connection.close().await.unwrap();
    } else {
        let mut connection = PgConnection::connect(url.as_str()).await.unwrap();
        connection.execute(statement).await.unwrap();
        connection.close().await.unwrap();
    }
}

async fn number(url: &Url, query: &str) -> i64 {
    if url.scheme() == "mysql" {
        let mut connection = MySqlConnection::connect(url.as_str()).await.unwrap();
        let query = sqlx::query_scalar(AssertSqlSafe(query));
        let number = query.fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        number
    } else {
        let mut connection = PgConnection::connect(url.as_str()).await.unwrap();
        let query = sqlx::query_scalar(AssertSqlSafe(query));
        let number = query.fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        number
    }
}
