//! Tells the cycle when the container store or the subnet file moves.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::cycle::Wake;

/// Why changes cannot be watched for.
#[derive(Debug, Error)]
pub enum WatchError {
    /// The folder is missing and cannot be made.
    #[error("making folder {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel offers no more watches, most likely.
    #[error("watching folder {}", path.display())]
    Watch {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: notify::Error,
    },
}

/// Watches until the returned value is dropped. Folders are watched, not files: writers replace files
/// by rename. Whatever the watch misses, the slow repair timer finds.
pub(crate) fn start<'a>(
    files: impl IntoIterator<Item = &'a PathBuf>,
    wake: &mpsc::Sender<Wake>,
) -> Result<RecommendedWatcher, WatchError> {
    let files: Vec<PathBuf> = files.into_iter().cloned().collect();
    let folders: Vec<PathBuf> = files.iter().map(|file| folder_of(file)).collect();
    let failed = |source| WatchError::Watch { path: folders[0].clone(), source };
    let wake = wake.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let concerns_us = match event {
            Ok(event) => moved(&event) && event.paths.iter().any(|path| files.contains(path)),
            // Events were lost: look to be sure.
            Err(_) => true,
        };
        if concerns_us {
            // A full channel means that a pass is about to happen anyway.
            let _ = wake.try_send(Wake::Containers);
        }
    })
    .map_err(failed)?;
    for path in &folders {
        let mut maker = fs::DirBuilder::new();
        maker.recursive(true).mode(0o700);
        maker.create(path).map_err(|source| WatchError::Folder { path: path.clone(), source })?;
        watcher
            .watch(path, RecursiveMode::NonRecursive)
            .map_err(|source| WatchError::Watch { path: path.clone(), source })?;
    }
    Ok(watcher)
}

/// Reading a file is an event as well, and our own passes read.
fn moved(event: &notify::Event) -> bool {
    !matches!(event.kind, notify::EventKind::Access(_))
}

fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}
