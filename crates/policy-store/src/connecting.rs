//! The first connection: a database that is on its way up is waited for, one that refuses us is not
//! (spec/policy-server.md §9.4).

use std::{pin::pin, time::Duration};

use thiserror::Error;
use tokio::time::{sleep, timeout};

use crate::{Connections, DatabaseServer, StoreError};

/// How often it is tried,
const ATTEMPTS: u32 = 10;

/// and how long it is waited in between.
const PAUSE: Duration = Duration::from_secs(3);

/// Whoever watches is told of what takes longer than this.
const SLOW: Duration = Duration::from_millis(500);

/// How long a request waits for a connection, where the database refuses or all are busy. The pool
/// keeps trying a database that refuses, and callers should be told instead.
const LENDING: Duration = Duration::from_secs(3);

/// How long a connection that is one too many is kept: long enough for the next request in a row.
const IDLE: Duration = Duration::from_secs(60);

/// A connection that was used this recently is taken to be alive: asking would double the round trips
/// of a small transaction, and whoever uses a dead one is told soon enough.
const FRESH: Duration = Duration::from_millis(500);

/// How long a kept connection may at most take to show that it is alive. One whose packets are dropped
/// would otherwise use up the time of the request that waits for it.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// Why there is no connection. The texts are those operators have in their search patterns.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// It took too long.
    #[error("context deadline exceeded")]
    Deadline {
        /// Why the last attempt failed, if one had ended.
        #[source]
        last: Option<sqlx::Error>,
    },
    /// The database, or the network, refused.
    #[error(transparent)]
    Refused(sqlx::Error),
}

/// Calls `ping` until `server` answers it, refuses for good, or its time is over. What is waited for is
/// told at once.
pub(crate) async fn until_it_answers<Pinging>(
    server: &DatabaseServer,
    ping: impl Fn() -> Pinging,
) -> Result<(), StoreError>
where
    Pinging: Future<Output = Result<(), sqlx::Error>>,
{
    let mut last = None;
    let slow = "The database has not answered yet; waiting.";
    let trying = async {
        for _ in 1..ATTEMPTS {
            match telling_if_slow(server, slow, ping()).await {
                Err(error) if is_on_its_way(&error) => {
                    tell_of(server, &error);
                    last = Some(error);
                    sleep(PAUSE).await;
                }
                answered => return answered,
            }
        }
        ping().await
    };
    match timeout(server.timeout, trying).await {
        Ok(answered) => answered.map_err(|error| StoreError::Connect(ConnectError::Refused(error))),
        Err(_) => Err(StoreError::Connect(ConnectError::Deadline { last })),
    }
}

fn tell_of(server: &DatabaseServer, error: &sqlx::Error) {
    tracing::warn!(
        %error,
        database.server = %server,
        retry_seconds = PAUSE.as_secs(),
        "The database is not there yet; trying again."
    );
}

/// Does `work`, and says what is `slow` while it takes its time.
pub(crate) async fn telling_if_slow<T>(
    server: &DatabaseServer,
    slow: &'static str,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    if let Ok(done) = timeout(SLOW, &mut work).await {
        return done;
    }
    tracing::warn!(database.server = %server, "{slow}");
    work.await
}

/// The SQLSTATE with which PostgreSQL tells that it is there, but still starting.
const STARTING: &str = "57P03";

fn is_on_its_way(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code == STARTING),
        _ => false,
    }
}

impl ConnectError {
    /// Whether nobody answered, rather than said no.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::Deadline { .. } => true,
            Self::Refused(error) => is_on_its_way(error),
        }
    }
}

impl Connections {
    /// How many there may be; the pool counts in `u32`, which is as good as no limit.
    pub(crate) fn most(&self) -> u32 {
        // A pool reserves nothing for connections it does not have.
        if self.most == 0 { 10_000 } else { self.most }
    }

    /// How long an idle one is kept.
    pub(crate) fn idle_timeout(&self) -> Duration {
        if self.idle == 0 { Duration::from_secs(1) } else { IDLE }
    }
}

/// How long the pool of a server that may take `timeout` for anything lets a request wait.
pub(crate) fn lending_timeout(timeout: Duration) -> Duration {
    timeout.min(LENDING)
}

/// Whether a kept connection can be lent to a request that has so much `patience`: an error is what
/// makes the pool drop one without a word to a database that may not be there.
pub(crate) async fn is_alive(
    idle_for: Duration,
    patience: Duration,
    ping: impl Future<Output = Result<(), sqlx::Error>>,
) -> Result<bool, sqlx::Error> {
    if idle_for < FRESH {
        return Ok(true);
    }
    timeout(SIGN_OF_LIFE.min(patience / 4), ping)
        .await
        .map_err(|_| sqlx::Error::PoolTimedOut)??;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::Instant;

    use super::*;

    fn patient_for(seconds: u64) -> DatabaseServer {
        let url = format!("postgres://netman@db/netman?connect_timeout={seconds}");
        DatabaseServer::of_url(&url, 5432).unwrap()
    }

    fn refused() -> sqlx::Error {
        sqlx::Error::Io(std::io::ErrorKind::ConnectionRefused.into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_on_its_way_up_is_waited_for() {
        let asked = Cell::new(0);
        let server = patient_for(60);
        let answered = until_it_answers(&server, async || {
            asked.set(asked.get() + 1);
            if asked.get() < 4 { Err(refused()) } else { Ok(()) }
        });
        let started = Instant::now();
        answered.await.unwrap();
        assert_eq!((asked.get(), started.elapsed()), (4, 3 * PAUSE));
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let chain = |error: StoreError| {
            let mut texts = vec![error.to_string()];
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                texts.push(error.to_string());
                cause = error.source();
            }
            texts
        };
        let server = patient_for(1);
        let refused = until_it_answers(&server, async || Err(refused())).await.unwrap_err();
        let texts = chain(refused);
        assert_eq!(texts[..2], ["unable to ping", "context deadline exceeded"]);
        assert!(texts[2].contains("connection refused"), "{texts:?}");
        let silent = until_it_answers(&server, std::future::pending).await.unwrap_err();
        assert_eq!(chain(silent), ["unable to ping", "context deadline exceeded"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_kept_connection_must_show_that_it_is_alive() {
        let (long, patience) = (Duration::from_secs(5), Duration::from_secs(2));
        assert!(is_alive(long, patience, async { Ok(()) }).await.unwrap());
        assert!(is_alive(long, patience, async { Err(refused()) }).await.is_err());
        let started = Instant::now();
        assert!(is_alive(long, patience, std::future::pending()).await.is_err());
        assert_eq!(started.elapsed(), patience / 4, "there must be time left for another");
        let just_used = Duration::ZERO;
        assert!(is_alive(just_used, patience, async { Err(refused()) }).await.unwrap());
    }

    #[tokio::test]
    async fn a_refusal_for_good_is_not_repeated() {
        let asked = Cell::new(0);
        let server = patient_for(60);
        let answered = until_it_answers(&server, async || {
            asked.set(asked.get() + 1);
            Err(sqlx::Error::RowNotFound)
        });
        assert!(answered.await.is_err());
        assert_eq!(asked.get(), 1);
    }
}
