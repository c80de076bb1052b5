//! Getting to the database (spec/policy-server.md §9.4).

use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, MySqlPool,
    mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlSslMode},
};

use crate::{DatabaseServer, DatabaseTls, Options, StoreError, connecting};

/// What we rely on in every session, whatever the server's defaults are: that a value which does not
/// fit is an error and is not cut, and that a transaction sees what was committed before it locked.
const SESSION: &str = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION';
     SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";

/// A pool of connections to a server that answered.
pub(super) async fn pool(
    server: &DatabaseServer,
    options: &Options,
) -> Result<MySqlPool, StoreError> {
    let connect = connect_options(server);
    connecting::until_it_answers(server, async || connect.connect().await?.close().await).await?;
    let connections = &options.connections;
    let (patience, session) = (options.patience, session(options.patience));
    let pool = MySqlPoolOptions::new()
        .max_connections(connections.most())
        .max_lifetime(connections.lifetime)
        .idle_timeout(connections.idle_timeout())
        .acquire_timeout(connecting::lending_timeout(server.timeout))
        .test_before_acquire(false)
        .before_acquire(move |connection, kept| {
            Box::pin(connecting::is_alive(kept.idle_for, patience, connection.ping()))
        })
        .after_connect(move |connection, _| {
            let session = AssertSqlSafe(session.clone());
            Box::pin(async move {
                let done = sqlx::raw_sql(session).execute(connection).await;
                done.map(drop).inspect_err(|error| {
                    tracing::warn!(%error, "A new connection could not be set up.");
                })
            })
        });
    Ok(pool.connect_lazy_with(connect))
}

/// What a session begins with. The server waits for a lock a little longer than we do for an answer, so
/// that it is we who give up, and that it soon does, too.
fn session(patience: Duration) -> String {
    let seconds = patience.as_secs() + 1;
    format!("{SESSION}; SET SESSION innodb_lock_wait_timeout = {seconds}")
}

fn connect_options(server: &DatabaseServer) -> MySqlConnectOptions {
    let DatabaseServer { host, port, user, password, database, tls, timeout: _ } = server;
    let mut connect = MySqlConnectOptions::new()
        .host(host)
        .port(*port)
        .username(user)
        .charset("utf8mb4")
        .timezone(Some("+00:00".to_owned()))
        // Modes are ours to set.
        .pipes_as_concat(false)
        .no_engine_substitution(false);
    if !database.is_empty() {
        connect = connect.database(database);
    }
    // An empty password is another thing than none, for the server, and none is what is meant.
    if !password.expose_secret().is_empty() {
        connect = connect.password(password.expose_secret());
    }
    match tls {
        DatabaseTls::Off => connect.ssl_mode(MySqlSslMode::Disabled),
        DatabaseTls::Unverified => connect.ssl_mode(MySqlSslMode::Required),
        DatabaseTls::VerifyAuthority(authority) => {
            connect.ssl_mode(MySqlSslMode::VerifyCa).ssl_ca(authority)
        }
        DatabaseTls::VerifyName(authority) => {
            connect.ssl_mode(MySqlSslMode::VerifyIdentity).ssl_ca(authority)
        }
    }
}
