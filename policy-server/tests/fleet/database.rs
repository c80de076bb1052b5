//! Databases on the servers that `scripts/test` starts.

use std::{
    env,
    io::Write,
    process::{Command, Stdio},
    sync::Arc,
};

use policy_store::{Options, PolicyStore};
use reqwest::Url;
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection};
use uuid::Uuid;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    MySql,
}

/// A database of one test's own; it goes with the test.
pub(crate) struct Database {
    pub kind: Kind,
    name: String,
    administrator: Url,
}

impl Database {
    pub(crate) async fn new(kind: Kind) -> Self {
        let variable = match kind {
            Kind::Postgres => "NETMAN_TEST_POSTGRES",
            Kind::MySql => "NETMAN_TEST_MYSQL",
        };
        let administrator = env::var(variable).unwrap_or_else(|_| {
            panic!("{variable} names no server to test on; scripts/test starts one")
        });
        let administrator = administrator.parse().unwrap();
        let name = format!("fleet_{}", Uuid::new_v4().simple());
        execute(&administrator, format!("CREATE DATABASE {name}")).await;
        Self { kind, name, administrator }
    }

    pub(crate) fn url(&self) -> Url {
        let mut url = self.administrator.clone();
        url.set_path(&self.name);
        url
    }

    /// Its contents, as operators save them.
    pub(crate) fn backup(&self) -> Vec<u8> {
        let mut dump = match self.kind {
            Kind::Postgres => {
                let mut dump = Command::new("pg_dump");
                dump.args(["--clean", "--if-exists", self.url().as_str()]);
                dump
            }
            Kind::MySql => self.client("mariadb-dump"),
        };
        let output = dump.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Puts back what was saved, under running servers.
    pub(crate) fn restore(&self, backup: &[u8]) {
        let mut client = match self.kind {
            Kind::Postgres => {
                let mut client = Command::new("psql");
                client.args(["--quiet", "--single-transaction", "-v", "ON_ERROR_STOP=1"]);
                client.arg(self.url().as_str());
                client
            }
            Kind::MySql => self.client("mariadb"),
        };
        let client = client.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = client.spawn().unwrap();
        child.stdin.take().unwrap().write_all(backup).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// A client of MariaDB, on this database.
    fn client(&self, program: &str) -> Command {
        let server = &self.administrator;
        let mut client = Command::new(program);
        client.args(["--no-defaults", "--protocol=tcp", "-h", server.host_str().unwrap()]);
        client.args(["-P", &server.port().unwrap().to_string(), "-u", server.username()]);
        client.env("MYSQL_PWD", server.password().unwrap()).arg(&self.name);
        client
    }

    /// The store, for somebody who has no server.
    pub(crate) async fn store(&self) -> Arc<dyn PolicyStore> {
        let url = self.url().as_str().parse().unwrap();
        policy_store::open(&url, &Options::default()).await.unwrap()
    }

    /// Adds a policy as the servers of 2024 do (spec/policy-server.md §4, §9.3), which know nothing of
    /// our tables. Both apps must have policies already.
    pub(crate) async fn create_as_of_old(&self, source: &str, destination: &str, port: u16) {
        let (quotes, now) = match self.kind {
            Kind::Postgres => ("", "now()"),
            Kind::MySql => ("SET SESSION sql_mode = CONCAT(@@sql_mode, ',ANSI_QUOTES');", "NOW(6)"),
        };
        let statements = format!(
            r#"{quotes}
            BEGIN;
            UPDATE policies_info SET last_updated = {now};
            INSERT INTO destinations (group_id, port, start_port, end_port, protocol)
            SELECT id, {port}, {port}, {port}, 'tcp' FROM "groups" WHERE guid = '{destination}';
            INSERT INTO policies (group_id, destination_id)
            SELECT source.id, d.id
            FROM "groups" source, "groups" destination, destinations d
            WHERE source.guid = '{source}' AND destination.guid = '{destination}'
              AND d.group_id = destination.id AND d.start_port = {port} AND d.end_port = {port};
            COMMIT;"#
        );
        execute(&self.url(), statements).await;
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (administrator, name) = (self.administrator.clone(), self.name.clone());
        let force = if self.kind == Kind::Postgres { "WITH (FORCE)" } else { "" };
        let drop = format!("DROP DATABASE IF EXISTS {name} {force}");
        // A test's runtime is about to end, and may not be blocked.
        let dropped = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(execute(&administrator, drop));
        })
        .join();
        if !std::thread::panicking() {
            dropped.unwrap();
        }
    }
}

async fn execute(url: &Url, statements: String) {
    let statements = sqlx::raw_sql(AssertSqlSafe(statements));
    if url.scheme() == "mysql" {
        let mut connection = MySqlConnection::connect(url.as_str()).await.unwrap();
        connection.execute(statements).await.unwrap();
        connection.close().await.unwrap();
    } else {
        let mut connection = PgConnection::connect(url.as_str()).await.unwrap();
        connection.execute(statements).await.unwrap();
        connection.close().await.unwrap();
    }
}
