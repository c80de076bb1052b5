//! `LISTEN` and `NOTIFY`: whoever takes a revision says so, and whoever keeps a snapshot looks at once.
//!
//! A hint and nothing else. Where nothing can be heard, as behind a pooler that lends a connection for one
//! transaction, changes are found by looking, a little later.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sqlx::{
    Executor,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// What revisions are told on; `advance` says the same.
pub(super) const CHANNEL: &str = "netman_revision";

/// A connection on which nothing was heard for so long must show that it is alive,
const SILENCE: Duration = Duration::from_secs(30);

/// within this time.
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);

/// How long it is waited before the second attempt to listen; twice as long before each further one,
const PAUSE: Duration = Duration::from_secs(1);

/// but not longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is heard, on a connection of its own beside the pool, from when somebody first asks.
pub(super) struct Hints {
    connect: PgConnectOptions,
    heard: Arc<Notify>,
    connections: Arc<AtomicU32>,
    listening: Mutex<Option<JoinHandle<()>>>,
}

impl Hints {
    pub(super) fn from(connect: PgConnectOptions) -> Self {
        Self {
            connect,
            heard: Arc::default(),
            connections: Arc::default(),
            listening: Mutex::new(None),
        }
    }

    /// Returns when something was heard since the last call.
    pub(super) async fn next(&self) {
        self.lock().get_or_insert_with(|| {
            let listener = Listener {
                connect: self.connect.clone(),
                heard: self.heard.clone(),
                connections: self.connections.clone(),
            };
            tokio::spawn(listener.run())
        });
        self.heard.notified().await;
    }

    /// How many connections are open: one, or none.
    pub(super) fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Listens no more.
    pub(super) fn close(&self) {
        let listening = self.lock().as_ref().map(JoinHandle::abort_handle);
        if let Some(listening) = listening {
            listening.abort();
        }
        self.connections.store(0, Ordering::Relaxed);
    }

    /// A panic elsewhere leaves it whole: it is only ever set.
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hints {
    fn drop(&mut self) {
        if let Some(listening) = &*self.lock() {
            listening.abort();
        }
    }
}

/// The task that listens.
struct Listener {
    connect: PgConnectOptions,
    heard: Arc<Notify>,
    connections: Arc<AtomicU32>,
}

impl Listener {
    /// Listens for as long as it may, and again whenever it could not.
    async fn run(self) {
        let (mut pause, mut told) = (PAUSE, false);
        loop {
            let began = Instant::now();
            let Err(error) = self.listen().await;
            self.connections.store(0, Ordering::Relaxed);
            // Of one that comes and goes it is told once.
            if began.elapsed() > LONGEST_PAUSE {
                (pause, told) = (PAUSE, false);
            }
            if !told {
                told = true;
                tracing::warn!(%error, "Cannot hear of changes; looking finds them a little later.");
            }
            sleep(pause).await;
            pause = LONGEST_PAUSE.min(2 * pause);
        }
    }

    /// Listens until it fails.
    async fn listen(&self) -> Result<std::convert::Infallible, sqlx::Error> {
        // A pool of its own, and another one each time: a listener that fails leaves its connection to
        // its pool, in whatever state.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_lazy_with(self.connect.clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        self.connections.store(1, Ordering::Relaxed);
        tracing::debug!("Changes are heard of.");
        // Of what happened meanwhile nobody told.
        self.heard.notify_one();
        loop {
            match timeout(SILENCE, listener.try_recv()).await {
                Ok(Ok(Some(_))) => self.heard.notify_one(),
                Ok(Ok(None)) => return Err(lost(std::io::ErrorKind::ConnectionAborted)),
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    let asked = timeout(SIGN_OF_LIFE, listener.execute("SELECT 1")).await;
                    asked.map_err(|_| lost(std::io::ErrorKind::TimedOut))??;
                }
            }
        }
    }
}

fn lost(how: std::io::ErrorKind) -> sqlx::Error {
    sqlx::Error::Io(how.into())
}
