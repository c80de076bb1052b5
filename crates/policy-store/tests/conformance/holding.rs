//! A change that somebody has begun and does not end.

use sqlx::{Connection, Executor, MySqlConnection, PgConnection};

/// What an older server does first, and what ours does next.
const BEGIN: &str = "BEGIN; SELECT id FROM policies_info FOR UPDATE;
                     UPDATE netman_revision SET revision = revision + 1";

/// A connection that holds the lock of all writers; undone when dropped.
pub(crate) enum Holding {
    Postgres { _connection: PgConnection },
    MySql { _connection: MySqlConnection },
}

impl Holding {
    pub(crate) async fn on(url: &str) -> Self {
        let begin = sqlx::raw_sql(BEGIN);
        if url.starts_with("mysql:") {
            let mut connection = MySqlConnection::connect(url).await.unwrap();
            connection.execute(begin).await.unwrap();
            Self::MySql { _connection: connection }
        } else {
            let mut connection = PgConnection::connect(url).await.unwrap();
            connection.execute(begin).await.unwrap();
            Self::Postgres { _connection: connection }
        }
    }
}
