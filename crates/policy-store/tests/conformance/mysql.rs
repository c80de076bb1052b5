//! Databases on the server that `NETMAN_TEST_MYSQL` names, as `mysql://root:password@127.0.0.1:3306`;
//! `scripts/test` starts one.

use std::time::Duration;

use policy_store::{DatabaseServer, DatabaseTls};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, MySqlConnection,
    mysql::{MySqlConnectOptions, MySqlSslMode},
};

/// The server, with a database nobody else has.
pub(crate) async fn new_database() -> DatabaseServer {
    let mut server = server();
    server.database = format!("netman_{}", uuid::Uuid::new_v4().simple());
    execute(&server, &format!("CREATE DATABASE {}", server.database)).await;
    server
}

fn server() -> DatabaseServer {
    let url = std::env::var("NETMAN_TEST_MYSQL")
        .expect("NETMAN_TEST_MYSQL names a server for tests; scripts/test starts one");
    let parts = url
        .strip_prefix("mysql://")
        .and_then(|rest| rest.split_once('@'))
        .and_then(|(who, place)| Some((who.split_once(':')?, place.split_once(':')?)));
    let Some(((user, password), (host, port))) = parts else {
        panic!("{url:?} is not mysql://USER:PASSWORD@HOST:PORT");
    };
    DatabaseServer {
        host: host.to_owned(),
        port: port.parse().unwrap(),
        user: user.to_owned(),
        password: password.into(),
        database: String::new(),
        tls: DatabaseTls::Off,
        timeout: Duration::from_secs(30),
    }
}

/// Runs a statement outside of all databases.
async fn execute(server: &DatabaseServer, statement: &str) {
    use secrecy::ExposeSecret;

    let options = MySqlConnectOptions::new()
        .host(&server.host)
        .port(server.port)
        .username(&server.user)
        .password(server.password.expose_secret())
        .ssl_mode(MySqlSslMode::Disabled);
    let mut connection: MySqlConnection = options.connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}
