//! Locks on files that may be replaced or removed while somebody waits for them: a lock counts only
//! if the file it is on is still the one of that name.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use tempfile::NamedTempFile;

const PAUSE: Duration = Duration::from_millis(5);

/// A lock that is held as long as this lives.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Opens `path`, creating it if need be, and locks it, waiting no longer than `patience`.
    pub fn take(path: &Path, patience: Duration) -> io::Result<Self> {
        create_parent(path)?;
        let deadline = Instant::now() + patience;
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)?;
            wait_for(&file, deadline, patience)?;
            if is_named(&file, path)? {
                return Ok(Self { file, path: path.to_owned() });
            }
        }
    }

    /// The locked file.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Replaces the content of the locked file in one step, which ends the lock.
    pub fn replace(self, content: &[u8]) -> io::Result<()> {
        replace(&self.path, content, true)
    }

    /// Removes the locked file, which ends the lock. Whoever waits for it starts over with a new one.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

/// Writes a file beside `path`, then gives it that name: a kill leaves the old content or the new.
pub(crate) fn replace(path: &Path, content: &[u8], durably: bool) -> io::Result<()> {
    create_parent(path)?;
    let mut file = NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(content)?;
    if durably {
        file.as_file().sync_data()?;
    }
    file.persist(path)?;
    Ok(())
}

fn wait_for(file: &File, deadline: Instant, patience: Duration) -> io::Result<()> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => {
                let stuck = format!("another process has held it for {patience:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, stuck));
            }
        }
    }
}

fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn create_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => DirBuilder::new().recursive(true).mode(0o700).create(parent),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tempfile::TempDir;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn one_at_a_time_even_when_the_file_is_removed_or_replaced_by_its_holder() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("locks/web");
        let inside = AtomicUsize::new(0);
        thread::scope(|scope| {
            for worker in 0..8 {
                let (path, inside) = (&path, &inside);
                scope.spawn(move || {
                    for _ in 0..20 {
                        let lock = Lock::take(path, LONG).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        match worker % 3 {
                            0 => lock.remove().unwrap(),
                            1 => lock.replace(b"x").unwrap(),
                            _ => drop(lock),
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn waiting_has_an_end() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("web");
        let _held = Lock::take(&path, LONG).unwrap();
        let error = Lock::take(&path, Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
