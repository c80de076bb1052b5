//! Connections: how they are made, lent, and given back.

use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::{
    Connection, MySql, MySqlConnection, MySqlPool,
    mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlSslMode},
    pool::PoolConnection,
};
use tokio::{runtime::Handle, time::timeout};

use crate::{DatabaseServer, DatabaseTls, Options, StoreError, error::Doing};

/// What we rely on in every session, whatever the server's defaults are: that a value which does not
/// fit is an error and is not cut, and that a transaction sees what was committed before it locked.
const SESSION: &str = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION';
     SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";

/// One that was lent within this time is not asked for a sign of life.
const FRESH: Duration = Duration::from_secs(1);

/// What "no limit" comes to: more than any server allows.
const UNLIMITED: u32 = 10_000;

/// How long the server waits for us to go on while we hold the lock of all writers. We never pause
/// there; if it hears nothing, the network has lost us, and others shall not wait.
const SILENCE: Duration = Duration::from_secs(5);

/// Connections that are made, kept, and closed when nobody knows what state they are in.
#[derive(Clone)]
pub(super) struct Connections {
    pool: MySqlPool,
    /// How many are kept while idle.
    idle: usize,
    patience: Duration,
}

/// A connection on loan, with a transaction on it.
pub(super) struct Lent {
    /// Taken when it is given back.
    connection: Option<PoolConnection<MySql>>,
    home: Connections,
    /// Whether a statement was begun and has not been seen to end.
    underway: bool,
}

/// How a server is reached.
pub(super) fn address(server: &DatabaseServer) -> MySqlConnectOptions {
    let DatabaseServer { host, port, user, password, database, tls, timeout: _ } = server;
    let mut options = MySqlConnectOptions::new()
        .host(host)
        .port(*port)
        .username(user)
        .charset("utf8mb4")
        // Both are part of `SESSION` where we want them.
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone(Some("+00:00".to_owned()));
    if !database.is_empty() {
        options = options.database(database);
    }
    if !password.expose_secret().is_empty() {
        options = options.password(password.expose_secret());
    }
    match tls {
        DatabaseTls::Off => options.ssl_mode(MySqlSslMode::Disabled),
        DatabaseTls::Unverified => options.ssl_mode(MySqlSslMode::Required),
        DatabaseTls::VerifyAuthority(authority) => {
            options.ssl_mode(MySqlSslMode::VerifyCa).ssl_ca(authority)
        }
        DatabaseTls::VerifyName(authority) => {
            options.ssl_mode(MySqlSslMode::VerifyIdentity).ssl_ca(authority)
        }
    }
}

impl Connections {
    pub(super) fn to(server: &DatabaseServer, options: &Options) -> Self {
        let crate::Connections { most, idle, lifetime } = options.connections;
        let patience = options.patience;
        let lock_wait = patience.as_secs().clamp(1, 50);
        let pool = MySqlPoolOptions::new()
            .max_connections(if most == 0 { UNLIMITED } else { most })
            .acquire_timeout(patience)
            .max_lifetime(lifetime)
            .idle_timeout(None)
            .test_before_acquire(false)
            .before_acquire(move |connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > FRESH {
                        sign_of_life(connection, patience).await?;
                    }
                    Ok(true)
                })
            })
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    let waits = format!("SET SESSION innodb_lock_wait_timeout = {lock_wait}");
                    run(connection, format!("{SESSION}; {waits}")).await
                })
            })
            .connect_lazy_with(address(server));
        Self { pool, idle: usize::try_from(idle).unwrap_or(usize::MAX), patience }
    }

    /// A transaction that holds the lock of the one row of `policies_info`.
    pub(super) async fn write(&self) -> Result<Lent, StoreError> {
        let silence = self.patience.min(SILENCE).as_secs().max(1);
        self.begin(
            format!(
                "SET SESSION wait_timeout = {silence}; START TRANSACTION READ WRITE; \
                 SELECT id FROM policies_info FOR UPDATE"
            ),
            "starting to write",
        )
        .await
    }

    /// A transaction that sees this instant.
    pub(super) async fn read(&self) -> Result<Lent, StoreError> {
        self.begin(
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; \
             START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
                .to_owned(),
            "starting to read",
        )
        .await
    }

    async fn begin(&self, statements: String, doing: &'static str) -> Result<Lent, StoreError> {
        let mut lent = self.lend(doing).await?;
        let begun = run(lent.enter(), statements).await.doing(doing);
        lent.leave(&begun);
        begun.map(|()| lent)
    }

    /// A connection without a transaction.
    pub(super) async fn lend(&self, doing: &'static str) -> Result<Lent, StoreError> {
        let connection = self.pool.acquire().await.doing(doing)?;
        Ok(Lent { connection: Some(connection), home: self.clone(), underway: false })
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        const DOING: &str = "asking for a sign of life";
        let mut lent = self.lend(DOING).await?;
        let answer = run(lent.enter(), "SELECT 1".to_owned()).await.doing(DOING);
        lent.leave(&answer);
        answer
    }

    pub(super) fn size(&self) -> u32 {
        self.pool.size()
    }

    /// Closes all, and gives up on those that do not answer.
    pub(super) async fn close(&self) {
        let _ = timeout(self.patience, self.pool.close()).await;
    }
}

impl Lent {
    /// The connection, to be asked something. Whoever takes it and does not [`leave`](Self::leave)
    /// was dropped in between.
    pub(super) fn enter(&mut self) -> &mut MySqlConnection {
        self.underway = true;
        self.connection.as_mut().expect("it is taken when the loan ends")
    }

    /// Notes how a question ended. After an answer, be it an error, the connection is where it should
    /// be; after anything else nobody knows.
    pub(super) fn leave<T>(&mut self, answer: &Result<T, StoreError>) {
        let unknown = matches!(
            answer,
            Err(StoreError::Database { source, .. }) if source.as_database_error().is_none()
        );
        self.underway = unknown;
    }

    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        let end = end("COMMIT");
        let committed = run(self.enter(), end).await.doing("committing");
        self.leave(&committed);
        if committed.is_ok()
            && let Some(connection) = self.connection.take()
        {
            self.home.clone().take_back(connection, None);
        }
        committed
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if self.underway {
            // Without a word: the server undoes what it had begun when it finds the line dead.
            drop(connection.detach());
        } else {
            self.home.clone().take_back(connection, Some(end("ROLLBACK")));
        }
    }
}

impl Connections {
    /// Takes a connection back, once `last` is done. One that does not answer is dropped, as it would
    /// keep its place for as long as the network takes to notice.
    fn take_back(self, mut connection: PoolConnection<MySql>, last: Option<String>) {
        let Ok(runtime) = Handle::try_current() else {
            drop(connection.detach());
            return;
        };
        runtime.spawn(async move {
            if let Some(last) = last
                && !matches!(timeout(self.patience, run(&mut connection, last)).await, Ok(Ok(())))
            {
                drop(connection.detach());
            } else if self.pool.num_idle() >= self.idle {
                let _ = timeout(self.patience, connection.close()).await;
            } else {
                let _ = timeout(self.patience, connection.return_to_pool()).await;
            }
        });
    }
}

/// The end of a transaction, and of the server's haste.
fn end(word: &str) -> String {
    format!("{word}; SET SESSION wait_timeout = DEFAULT")
}

async fn run(connection: &mut MySqlConnection, statements: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(super::fixed(statements)).execute(connection).await?;
    Ok(())
}

/// Fails soon where nothing answers, so that there is time left for another connection.
async fn sign_of_life(
    connection: &mut MySqlConnection,
    patience: Duration,
) -> Result<(), sqlx::Error> {
    timeout(patience / 4, connection.ping()).await.map_err(|_| sqlx::Error::PoolTimedOut)?
}

/// A connection of its own, for work that takes long.
pub(super) async fn connect(server: &DatabaseServer) -> Result<MySqlConnection, StoreError> {
    use sqlx::ConnectOptions;

    let mut connection = address(server).connect().await.doing("connecting to the database")?;
    run(&mut connection, SESSION.to_owned()).await.doing("preparing a session")?;
    Ok(connection)
}
