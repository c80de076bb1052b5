//! What the servers and the database do while nothing changes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use sqlx::{Connection, PgConnection};
use tokio::time::sleep;

use crate::{database::Database, outcome::rounded, process::Process};

/// So many kinds of statements are told.
const TOLD: usize = 8;

/// The statements of this database, by kind; not those by which it is looked at.
const STATEMENTS: &str = "
    SELECT query, calls FROM pg_stat_statements
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND query NOT LIKE '%pg_stat_statements%' AND calls > 0
    ORDER BY calls DESC";

/// What is counted while nothing changes.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Rest {
    pub seconds: f64,
    /// Statements of the database, those that begin and end transactions included.
    pub queries_per_second: f64,
    /// The most frequent ones.
    pub by_query: Vec<(String, f64)>,
    /// Of one processor.
    pub server_cpu_percent: f64,
    pub database_cpu_percent: f64,
}

/// Looks for `duration`.
pub(super) async fn look(server: Process, database: &Database, duration: Duration) -> Result<Rest> {
    let url = database.url.as_deref().context("a file has no statistics of statements")?;
    let mut connection = PgConnection::connect(url).await.context("connecting to PostgreSQL")?;
    let reset = "SELECT pg_stat_statements_reset()";
    sqlx::raw_sql("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        .execute(&mut connection)
        .await
        .context("PostgreSQL must be started with shared_preload_libraries=pg_stat_statements")?;
    let (server_before, database_before) = (server.cpu()?, database.cpu()?);
    sqlx::raw_sql(reset).execute(&mut connection).await?;
    let began = Instant::now();
    sleep(duration).await;
    let statements: Vec<(String, i64)> =
        sqlx::query_as(STATEMENTS).fetch_all(&mut connection).await?;
    let seconds = began.elapsed().as_secs_f64();
    let (server_after, database_after) = (server.cpu()?, database.cpu()?);
    connection.close().await?;
    let each_second = |count: i64| rounded(count as f64 / seconds);
    let percent = |after: Duration, before: Duration| {
        rounded(100.0 * after.saturating_sub(before).as_secs_f64() / seconds)
    };
    let told = statements.iter().take(TOLD);
    Ok(Rest {
        seconds: rounded(seconds),
        queries_per_second: each_second(statements.iter().map(|(_, calls)| calls).sum()),
        by_query: told.map(|(query, calls)| (in_one_line(query), each_second(*calls))).collect(),
        server_cpu_percent: percent(server_after, server_before),
        database_cpu_percent: percent(
            database_after.unwrap_or_default(),
            database_before.unwrap_or_default(),
        ),
    })
}

fn in_one_line(query: &str) -> String {
    query.split_whitespace().collect::<Vec<_>>().join(" ")
}
