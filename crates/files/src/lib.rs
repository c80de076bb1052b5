//! Files that others read while we write, and that survive being killed in the middle of it: replaced
//! by rename ([`replace`]), and locked with an end to the waiting ([`lock`]).

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use tempfile::NamedTempFile;

/// How often a lock that somebody else holds is tried.
const PAUSE: Duration = Duration::from_millis(2);

/// Who may read a file, and how sure the disk must be of it.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    mode: u32,
    durable: bool,
}

impl Manner {
    /// For its owner alone: mode 0600.
    pub const PRIVATE: Self = Self { mode: 0o600, durable: true };

    /// Readable by everyone: mode 0644.
    pub const PUBLIC: Self = Self { mode: 0o644, durable: true };

    /// Not waiting for the disk: after a power cut the old content may be back. After a kill of this
    /// process it is not.
    #[must_use]
    pub fn hasty(self) -> Self {
        Self { durable: false, ..self }
    }
}

/// Makes `path` hold `content`: at any instant, and after a kill at any instant, it holds all of the
/// old or all of the new. Missing folders are made, with mode 0700. A file that belongs to somebody
/// else stays theirs.
pub fn replace(path: &Path, content: &[u8], manner: Manner) -> io::Result<()> {
    create_parent(path)?;
    let mut draft = NamedTempFile::new_in(parent(path))?;
    draft.as_file().set_permissions(Permissions::from_mode(manner.mode))?;
    keep_owner(path, draft.as_file())?;
    draft.write_all(content)?;
    if manner.durable {
        draft.as_file().sync_all()?;
    }
    draft.persist(path)?;
    if manner.durable {
        File::open(parent(path))?.sync_all()?;
    }
    Ok(())
}

/// Opens a file to be locked; creates it, and missing folders, if need be, and never empties it.
pub fn open_to_lock(path: &Path) -> io::Result<File> {
    create_parent(path)?;
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Locks `file` for itself alone, until it is closed. Gives up after `patience`
/// ([`io::ErrorKind::TimedOut`]).
pub fn lock(file: &File, patience: Duration) -> io::Result<()> {
    wait(|| file.try_lock(), patience)
}

/// Locks `file` together with other readers, until it is closed; see [`lock`].
pub fn lock_shared(file: &File, patience: Duration) -> io::Result<()> {
    wait(|| file.try_lock_shared(), patience)
}

/// Makes the folder of `path`, with mode 0700, if it is missing.
pub fn create_parent(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(parent(path))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn keep_owner(old: &Path, new: &File) -> io::Result<()> {
    let Ok(old) = fs::metadata(old) else { return Ok(()) };
    let now = new.metadata()?;
    if (old.uid(), old.gid()) == (now.uid(), now.gid()) {
        return Ok(());
    }
    fchown(new, Some(old.uid()), Some(old.gid()))
}

fn wait(attempt: impl Fn() -> Result<(), TryLockError>, patience: Duration) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(error);
            }
            Err(_) if Instant::now() < deadline => thread::sleep(PAUSE),
            Err(_) => {
                let stuck = format!("another process has held the lock for {patience:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, stuck));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/file");
        replace(&path, b"old", Manner::PRIVATE).unwrap();
        let first = fs::metadata(&path).unwrap();
        replace(&path, b"new", Manner::PUBLIC.hasty()).unwrap();
        let second = fs::metadata(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!((first.mode() & 0o777, second.mode() & 0o777), (0o600, 0o644));
        assert_ne!(first.ino(), second.ino(), "it was written in place");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn waiting_for_a_lock_has_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let patience = Duration::from_millis(20);
        let held = open_to_lock(&path).unwrap();
        lock(&held, patience).unwrap();
        let other = open_to_lock(&path).unwrap();
        assert_eq!(lock(&other, patience).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(lock_shared(&other, patience).unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(held);
        lock_shared(&other, patience).unwrap();
        lock_shared(&open_to_lock(&path).unwrap(), patience).unwrap();
    }
}
