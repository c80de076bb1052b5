//! Certificates change while the process runs. The *directories* of the files are watched, since a
//! swapped symbolic link is no event of the file it led to; a slow look beside it covers file systems
//! that tell nobody. What cannot be used leaves the old settings in place.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use rustls::ServerConfig;
use tokio::{
    sync::{Notify, watch},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{Server, TlsError};
use crate::log::chain;

/// How often the files are looked at although nobody said that they changed.
const SLOWLY: Duration = Duration::from_secs(60);

/// How long the files must be left alone: certificate and key are written one after the other.
const SETTLED: Duration = Duration::from_millis(100);

/// The settings of a listener, as its files are now.
#[derive(Debug, Clone)]
pub struct Live(watch::Receiver<Arc<ServerConfig>>);

/// Loads the settings, and follows their files for as long as somebody holds the answer. Call it
/// inside a runtime.
pub fn follow(server: Server) -> Result<Live, TlsError> {
    let seen = look(&server);
    let (sender, receiver) = watch::channel(server.load()?);
    tokio::spawn(Follower { server, seen, sender }.run());
    Ok(Live(receiver))
}

impl Live {
    /// What to shake hands with now.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.0.borrow().clone()
    }
}

/// Settings that never change.
impl From<Arc<ServerConfig>> for Live {
    fn from(config: Arc<ServerConfig>) -> Self {
        Self(watch::channel(config).1)
    }
}

/// What the files hold; those that cannot be read hold the reason.
type Seen = Vec<Result<Vec<u8>, io::ErrorKind>>;

struct Follower {
    server: Server,
    seen: Seen,
    sender: watch::Sender<Arc<ServerConfig>>,
}

impl Follower {
    async fn run(mut self) {
        let changed = Arc::new(Notify::new());
        let _watcher = watch_directories(&self.server.files(), changed.clone());
        let mut slowly = interval(SLOWLY);
        slowly.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = changed.notified() => sleep(SETTLED).await,
                _ = slowly.tick() => {}
                () = self.sender.closed() => return,
            }
            self.take_up();
        }
    }

    fn take_up(&mut self) {
        let seen = look(&self.server);
        if seen == self.seen {
            return;
        }
        self.seen = seen;
        let certificate = self.server.identity.certificate.display();
        match self.server.load() {
            Ok(config) => {
                self.sender.send_replace(config);
                tracing::info!(%certificate, "Took up new certificates.");
            }
            Err(error) => {
                let error = chain(&error);
                tracing::error!(error, "New certificates are of no use; the old ones stay.");
            }
        }
    }
}

fn look(server: &Server) -> Seen {
    let read = |path: PathBuf| std::fs::read(path).map_err(|error| error.kind());
    server.files().into_iter().map(read).collect()
}

/// Says when anything in the directories of `files` changes, until dropped.
fn watch_directories(files: &[PathBuf], changed: Arc<Notify>) -> Option<RecommendedWatcher> {
    let told = move |event: notify::Result<notify::Event>| {
        // Our own reading is an event, too.
        if event.map_or(true, |event| is_change(event.kind)) {
            changed.notify_one();
        }
    };
    let directories: BTreeSet<_> = files.iter().map(|file| directory(file)).collect();
    let watched = notify::recommended_watcher(told).and_then(|mut watcher| {
        for directory in directories {
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    });
    watched
        .inspect_err(|error| {
            tracing::warn!(%error, "Cannot watch certificates; looking at them every minute.");
        })
        .ok()
}

fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

fn directory(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
