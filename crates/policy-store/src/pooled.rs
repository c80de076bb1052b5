//! A connection lent by a pool, most often for a transaction.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{AssertSqlSafe, Database, Pool, pool::PoolConnection};
use tokio::time::timeout;

use crate::{StoreError, error::Doing};

/// How long undoing a transaction nobody waits for may take.
const UNDOING: Duration = Duration::from_secs(5);

/// A lent connection, in a transaction or not. Dropped before it is committed, it is undone, and the
/// connection goes back; dropped while a statement is under way, in which state nobody knows what
/// the connection is in, so it is closed, without a word to a database that may not be there.
pub(crate) struct Pooled<DB: Speaks> {
    /// `None` only after the end.
    connection: Option<PoolConnection<DB>>,
    /// Whether there is a transaction to end.
    begun: bool,
    busy: bool,
}

/// The connection while a statement is under way.
pub(crate) struct Busy<'a, DB: Speaks>(&'a mut Pooled<DB>);

/// What a driver's connection must be able to do.
pub(crate) trait Speaks: Database {
    /// Ends a transaction well.
    const COMMIT: &'static str;

    /// Undoes one.
    const ROLLBACK: &'static str;

    /// Runs statements that give nothing back, all in one go.
    fn run(
        connection: &mut Self::Connection,
        statements: &'static str,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

macro_rules! speaks {
    ($($database:ty: $commit:expr, $rollback:expr;)*) => {$(
        impl Speaks for $database {
            const COMMIT: &'static str = $commit;
            const ROLLBACK: &'static str = $rollback;

            async fn run(
                connection: &mut Self::Connection,
                statements: &'static str,
            ) -> Result<(), sqlx::Error> {
                use sqlx::Executor;
                connection.execute(sqlx::raw_sql(AssertSqlSafe(statements))).await.map(drop)
            }
        }
    )*};
}
speaks! {
    sqlx::Postgres: "COMMIT", "ROLLBACK";
    // Writers have told the server not to wait for them for long.
    sqlx::MySql: "COMMIT; SET SESSION wait_timeout = DEFAULT",
                 "ROLLBACK; SET SESSION wait_timeout = DEFAULT";
}

impl<DB: Speaks> Pooled<DB> {
    /// A transaction begun by `statements`.
    pub(crate) async fn begin(
        pool: &Pool<DB>,
        statements: &'static str,
        doing: &'static str,
    ) -> Result<Self, StoreError> {
        let connection = lend(pool).await.doing(doing)?;
        let mut begun = Self { connection: Some(connection), begun: true, busy: false };
        DB::run(&mut begun.use_it(), statements).await.doing(doing)?;
        begun.free();
        Ok(begun)
    }

    /// A connection without a transaction: each statement takes effect alone, and at once.
    pub(crate) async fn alone(pool: &Pool<DB>, doing: &'static str) -> Result<Self, StoreError> {
        let connection = lend(pool).await.doing(doing)?;
        Ok(Self { connection: Some(connection), begun: false, busy: false })
    }

    /// The connection for one statement; say [`free`](Self::free) when it is over.
    pub(crate) fn use_it(&mut self) -> Busy<'_, DB> {
        self.busy = true;
        Busy(self)
    }

    /// The statement is over, well or not, and the connection waits for another.
    pub(crate) fn free(&mut self) {
        self.busy = false;
    }

    pub(crate) async fn commit(mut self) -> Result<(), StoreError> {
        if self.begun {
            DB::run(&mut self.use_it(), DB::COMMIT).await.doing("committing")?;
            self.free();
        }
        // Back to the pool, with nothing to undo.
        self.connection = None;
        Ok(())
    }
}

/// A connection of `pool`, whose patience is meant for a database that refuses. Where all connections
/// are in use the database is there, and they are waited for as long as the caller likes.
pub(crate) async fn lend<DB: Database>(pool: &Pool<DB>) -> Result<PoolConnection<DB>, sqlx::Error> {
    let all_in_use = || pool.num_idle() == 0 && pool.size() >= pool.options().get_max_connections();
    loop {
        match pool.acquire().await {
            Err(sqlx::Error::PoolTimedOut) if all_in_use() => {}
            lent => return lent,
        }
    }
}

impl<DB: Speaks> Deref for Busy<'_, DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        self.0.connection.as_deref().expect("it is there until the transaction ends")
    }
}

impl<DB: Speaks> DerefMut for Busy<'_, DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        self.0.connection.as_deref_mut().expect("it is there until the transaction ends")
    }
}

impl<DB: Speaks> Drop for Pooled<DB> {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let runtime = tokio::runtime::Handle::try_current();
        let (false, Ok(runtime)) = (self.busy, runtime) else {
            drop(connection.detach());
            return;
        };
        if !self.begun {
            return;
        }
        runtime.spawn(async move {
            let undone = timeout(UNDOING, DB::run(&mut connection, DB::ROLLBACK)).await;
            if !matches!(undone, Ok(Ok(()))) {
                drop(connection.detach());
            }
        });
    }
}
