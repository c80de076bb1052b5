//! Databases on the servers that `scripts/test` starts.

use std::env;

use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection};
use uuid::Uuid;

/// A database that exists as long as this does.
pub(crate) struct Created {
    /// As the store is given it.
    pub url: String,
    name: String,
    administrator: String,
}

impl Created {
    pub(crate) async fn on_postgres() -> Self {
        let administrator = env::var("NETMAN_TEST_POSTGRES").expect(
            "NETMAN_TEST_POSTGRES names no PostgreSQL server to test on; scripts/test starts one",
        );
        Self::on(administrator).await
    }

    pub(crate) async fn on_mysql() -> Self {
        let administrator = env::var("NETMAN_TEST_MYSQL").expect(
            "NETMAN_TEST_MYSQL names no MariaDB server to test on; scripts/test starts one",
        );
        Self::on(administrator).await
    }

    async fn on(administrator: String) -> Self {
        let name = format!("story_{}", Uuid::new_v4().simple());
        execute(&administrator, &format!("CREATE DATABASE {name}")).await;
        let (server, _) = administrator.rsplit_once('/').unwrap();
        Self { url: format!("{server}/{name}"), name, administrator }
    }

    pub(crate) async fn run(&self, statements: &str) {
        execute(&self.url, statements).await;
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        let (administrator, name) = (self.administrator.clone(), self.name.clone());
        // A story's runtime is about to end, and may not be blocked.
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

/// Whoever is connected to it notices.
async fn drop_database(administrator: &str, name: &str) {
    if !is_mysql(administrator) {
        return execute(administrator, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
    }
    // Transactions that nobody ends would be waited for.
    let mut connection = MySqlConnection::connect(administrator).await.unwrap();
    let connected: Vec<i64> = sqlx::query_scalar(
        "SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE db = ?",
    )
    .bind(name)
    .fetch_all(&mut connection)
    .await
    .unwrap();
    for id in connected {
        // It may have gone by itself.
        let _ = connection.execute(AssertSqlSafe(format!("KILL {id}"))).await;
    }
    execute(administrator, &format!("DROP DATABASE {name}")).await;
}

async fn execute(url: &str, statements: &str) {
    let statements = sqlx::raw_sql(AssertSqlSafe(statements));
    if is_mysql(url) {
        let mut connection = MySqlConnection::connect(url).await.unwrap();
        connection.execute(statements).await.unwrap();
        connection.close().await.unwrap();
    } else {
        let mut connection = PgConnection::connect(url).await.unwrap();
        connection.execute(statements).await.unwrap();
        connection.close().await.unwrap();
    }
}

fn is_mysql(url: &str) -> bool {
    url.starts_with("mysql:")
}
