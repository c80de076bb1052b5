//! Getting to the database (spec/policy-server.md §9.4).

use secrecy::ExposeSecret;
use sqlx::{
    ConnectOptions, Connection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};

use crate::{DatabaseServer, DatabaseTls, Options, StoreError, connecting};

/// A pool of connections to a server that answered.
pub(super) async fn pool(server: &DatabaseServer, options: &Options) -> Result<PgPool, StoreError> {
    let connect = connect_options(server);
    connecting::until_it_answers(server, async || connect.connect().await?.close().await).await?;
    let (connections, patience) = (&options.connections, options.patience);
    let pool = PgPoolOptions::new()
        .max_connections(connections.most())
        .max_lifetime(connections.lifetime)
        .idle_timeout(connections.idle_timeout())
        .acquire_timeout(connecting::lending_timeout(server.timeout))
        .test_before_acquire(false)
        .before_acquire(move |connection, kept| {
            Box::pin(connecting::is_alive(kept.idle_for, patience, connection.ping()))
        });
    Ok(pool.connect_lazy_with(connect))
}

pub(super) fn connect_options(server: &DatabaseServer) -> PgConnectOptions {
    let DatabaseServer { host, port, user, password, database, tls, timeout: _ } = server;
    let connect = PgConnectOptions::new_without_pgpass()
        .host(host)
        .port(*port)
        .username(user)
        .password(password.expose_secret())
        .application_name("policy-server")
        .options([
            // Tables of one row that is written all the time look large to the planner, which then
            // compiles a query that takes microseconds.
            ("jit", "off"),
            // Notices say that there was nothing to do.
            ("client_min_messages", "warning"),
        ]);
    let connect = if database.is_empty() { connect } else { connect.database(database) };
    match tls {
        DatabaseTls::Off => connect.ssl_mode(PgSslMode::Disable),
        DatabaseTls::Unverified => connect.ssl_mode(PgSslMode::Require),
        DatabaseTls::VerifyAuthority(authority) => {
            connect.ssl_mode(PgSslMode::VerifyCa).ssl_root_cert(authority)
        }
        DatabaseTls::VerifyName(authority) => {
            connect.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(authority)
        }
    }
}
