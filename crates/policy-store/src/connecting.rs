//! The first connection: a database that is on its way up is waited for, one that refuses us is not
//! (spec/policy-server.md §9.4).

use std::time::Duration;

use thiserror::Error;
use tokio::time::{sleep, timeout};

use crate::{Connections, StoreError};

/// How often it is tried,
const ATTEMPTS: u32 = 10;

/// and how long it is waited in between.
const PAUSE: Duration = Duration::from_secs(3);

/// How long a request waits for a connection, where the database refuses or all are busy. The pool
/// keeps trying a database that refuses, and callers should be told instead.
const LENDING: Duration = Duration::from_secs(3);

/// How long a connection that is one too many is kept: long enough for the next request in a row.
const IDLE: Duration = Duration::from_secs(60);

/// Why there is no connection. The texts are those operators have in their search patterns.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// It took too long.
    #[error("context deadline exceeded")]
    Deadline,
    /// The database, or the network, refused.
    #[error(transparent)]
    Refused(sqlx::Error),
}

/// Calls `ping` until it succeeds, fails for good, or `patience` is over.
pub(crate) async fn until_it_answers<Pinging>(
    patience: Duration,
    ping: impl Fn() -> Pinging,
) -> Result<(), StoreError>
where
    Pinging: Future<Output = Result<(), sqlx::Error>>,
{
    let trying = async {
        for _ in 1..ATTEMPTS {
            match ping().await {
                Err(error) if is_the_networks(&error) => sleep(PAUSE).await,
                answered => return answered,
            }
        }
        ping().await
    };
    match timeout(patience, trying).await {
        Ok(answered) => answered.map_err(|error| StoreError::Connect(ConnectError::Refused(error))),
        Err(_) => Err(StoreError::Connect(ConnectError::Deadline)),
    }
}

fn is_the_networks(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut)
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::Instant;

    use super::*;

    fn refused() -> sqlx::Error {
        sqlx::Error::Io(std::io::ErrorKind::ConnectionRefused.into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_on_its_way_up_is_waited_for() {
        let asked = Cell::new(0);
        let answered = until_it_answers(Duration::from_secs(60), async || {
            asked.set(asked.get() + 1);
            if asked.get() < 4 { Err(refused()) } else { Ok(()) }
        });
        let started = Instant::now();
        answered.await.unwrap();
        assert_eq!((asked.get(), started.elapsed()), (4, 3 * PAUSE));
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let error =
            until_it_answers(Duration::from_secs(1), async || Err(refused())).await.unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(
            (error.to_string().as_str(), source.as_str()),
            ("unable to ping", "context deadline exceeded")
        );
    }

    #[tokio::test]
    async fn a_refusal_for_good_is_not_repeated() {
        let asked = Cell::new(0);
        let answered = until_it_answers(Duration::from_secs(60), async || {
            asked.set(asked.get() + 1);
            Err(sqlx::Error::RowNotFound)
        });
        assert!(answered.await.is_err());
        assert_eq!(asked.get(), 1);
    }
}
