//! What the store asks of the file system beyond `files`.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Nobody holds the lock for longer than one small write; a minute means that somebody is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// `path` with `suffix` glued to its last component.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Opens and locks for writing; the lock lasts as long as the file lives. The lock file is created if
/// need be and never removed: a new inode would be a second lock.
pub(crate) fn lock_exclusive(path: &Path) -> io::Result<File> {
    let file = files::open_to_lock(path)?;
    files::lock(&file, PATIENCE)?;
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
    files::lock_shared(&file, PATIENCE)?;
    Ok(Some(file))
}

/// The content of a file; nothing when there is no such file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result,
    }
}
