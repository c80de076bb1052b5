//! Looking into a file behind the store's back.

use std::path::Path;

use sqlx::{AssertSqlSafe, Connection, Executor, SqliteConnection};

pub(crate) async fn run(path: &Path, statements: &str) {
    let mut connection =
        SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    connection.execute(sqlx::raw_sql(AssertSqlSafe(statements))).await.unwrap();
    connection.close().await.unwrap();
}
