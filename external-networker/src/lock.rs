//! Locks on files that may be replaced or removed while somebody waits for them: a lock counts only
//! if the file it is on is still the one of that name.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use files::Manner;

/// A lock that is held as long as this lives.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Opens `path`, creating it if need be, and locks it, waiting no longer than `patience`.
    pub fn take(path: &Path, patience: Duration) -> io::Result<Self> {
        let file = files::take(path, patience)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// The locked file.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Replaces the content of the locked file in one step, which ends the lock.
    pub fn replace(self, content: &[u8]) -> io::Result<()> {
        files::replace(&self.path, content, Manner::PRIVATE)
    }

    /// Removes the locked file, which ends the lock. Whoever waits for it starts over with a new one.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

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
