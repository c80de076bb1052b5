//! The two things the store asks of the file system: a lock with a bound, and a write that happens
//! completely or not at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Nobody holds the lock for longer than one small write; a minute means that somebody is stuck.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(2);

/// `path` with `suffix` glued to its last component.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Opens and locks for writing; the lock lasts as long as the file lives. The lock file is created if
/// need be and never removed: a new inode would be a second lock.
pub(crate) fn lock_exclusive(path: &Path) -> io::Result<File> {
    create_parent(path)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    patiently(|| file.try_lock())?;
    Ok(file)
}

/// Locks for reading. `None` where there is no lock file, hence no writer that would use it: readers
/// leave no traces, since they may run as another user.
pub(crate) fn lock_shared(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    patiently(|| file.try_lock_shared())?;
    Ok(Some(file))
}

fn patiently(attempt: impl Fn() -> Result<(), TryLockError>) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(error);
            }
            Err(_) if Instant::now() < deadline => thread::sleep(PAUSE),
            Err(_) => {
                let stuck = format!("another process has held the lock for {PATIENCE:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, stuck));
            }
        }
    }
}

/// The content of a file; nothing when there is no such file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result,
    }
}

/// Replaces the content of `path` in one step. Only under the exclusive lock, which is what makes the
/// fixed name of the half-written file safe (and keeps a crash from leaving more than one of them).
pub(crate) fn replace(path: &Path, content: &[u8], durably: bool) -> io::Result<()> {
    let half = beside(path, "_new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
    keep_owner(path, &file)?;
    file.write_all(content)?;
    if durably {
        file.sync_all()?;
    }
    fs::rename(&half, path)?;
    if durably && let Some(parent) = path.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// The store may have been given to another user (BOSH: `vcap`), and the readers run as that one.
fn keep_owner(old: &Path, new: &File) -> io::Result<()> {
    let Ok(old) = fs::metadata(old) else {
        return Ok(());
    };
    let now = new.metadata()?;
    if (old.uid(), old.gid()) != (now.uid(), now.gid()) {
        fchown(new, Some(old.uid()), Some(old.gid()))?;
    }
    Ok(())
}

pub(crate) fn create_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)
        }
        _ => Ok(()),
    }
}
