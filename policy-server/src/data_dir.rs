//! The directory of an embedded server, for its owner only:
//!
//! ```text
//! DIR/
//!   netman.db            policies, tags, leases (and SQLite's files beside it)
//!   lock                 held by the running server
//!   addresses.json       where the running server listens
//!   pki/
//!     ca.crt ca.key            the authority both sides of the internal API trust
//!     server.crt server.key    the internal API's certificate
//!     agent.crt agent.key      the cells' certificate
//!     token-signing.key token-signing.pub
//! ```

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use files::Manner;
use thiserror::Error;

/// How long a former server may take to let go of the directory.
const PATIENCE: Duration = Duration::from_secs(1);

/// A data directory; it exists once [`DataDir::create`] said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDir(PathBuf);

/// A file or directory that could not be read or written.
#[derive(Debug, Error)]
#[error("{doing} {}", path.display())]
pub struct FileError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Its owner.
    Owner,
    /// Everyone who may enter the directory.
    All,
}

impl DataDir {
    /// The data directory at `path`, whether it exists or not.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Makes the directories that are missing.
    pub fn create(&self) -> Result<(), FileError> {
        for path in [&self.0, &self.pki()] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(FileError::doing("making the directory", path))?;
        }
        Ok(())
    }

    /// Takes the directory for this process, until the file is closed. Two servers on one would
    /// each tell only what their own cells enforce, and remove each other's `addresses.json`.
    pub fn take(&self) -> Result<File, FileError> {
        let path = self.0.join("lock");
        let doing = "taking the data directory by locking";
        let taken =
            files::open_to_lock(&path).and_then(|file| files::lock(&file, PATIENCE).map(|()| file));
        taken.map_err(FileError::doing(doing, &path))
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.0.join("netman.db")
    }

    /// Where the running server says how it can be reached.
    pub fn addresses(&self) -> PathBuf {
        self.0.join("addresses.json")
    }

    /// The directory of certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.0.join("pki")
    }
}

impl FileError {
    /// Whether it is another process that has the file.
    pub fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::TimedOut
    }

    fn doing(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { doing, path: path.to_owned(), source }
    }
}

/// The contents of `path`, or `None` if there is no such file.
pub fn read(path: &Path) -> Result<Option<String>, FileError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::doing("reading", path)(error)),
    }
}

/// Removes `path` if it is there.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::doing("removing", path)(error))
        }
        _ => Ok(()),
    }
}

/// Replaces `path` by a file that holds `text`: at any instant, and after a crash at any instant,
/// it holds either what it held or all of `text`.
pub fn write(path: &Path, text: &str, readers: Readers) -> Result<(), FileError> {
    let manner = match readers {
        Readers::Owner => Manner::PRIVATE,
        Readers::All => Manner::PUBLIC,
    };
    files::replace(path, text.as_bytes(), manner).map_err(FileError::doing("writing", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn keys_are_for_the_owner_alone() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::at(temp.path().join("a/b"));
        dir.create().unwrap();
        dir.create().unwrap();
        assert_eq!((mode(&dir.0), mode(&dir.pki())), (0o700, 0o700));
        let key = dir.pki().join("ca.key");
        write(&key, "one", Readers::Owner).unwrap();
        write(&key, "two", Readers::Owner).unwrap();
        assert_eq!(read(&key).unwrap().as_deref(), Some("two"));
        assert_eq!(mode(&key), 0o600);
        assert_eq!(fs::read_dir(dir.pki()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_file_is_none_and_an_unreadable_one_is_named() {
        let temp = tempfile::tempdir().unwrap();
        assert!(read(&temp.path().join("none")).unwrap().is_none());
        let error = read(temp.path()).unwrap_err();
        assert_eq!(error.to_string(), format!("reading {}", temp.path().display()));
    }
}
