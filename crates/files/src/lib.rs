//! Files that others read while we write, and that survive being killed in the middle of it: replaced
//! by rename ([`replace`]), and locked with an end to the waiting ([`lock`]).

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// How often a lock that somebody else holds is tried.
const PAUSE: Duration = Duration::from_millis(2);

/// How long another writer of the same file may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who may read a file, and how sure the disk must be of it.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    mode: u32,
    durable: bool,
    /// `None` for whoever has it now, or else for us.
    owner: Option<Owner>,
}

/// To whom a file belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

impl Owner {
    /// Gives an open file away.
    ///
    /// # Errors
    /// If we may not.
    pub fn take_over(self, file: &File) -> io::Result<()> {
        let about = file.metadata()?;
        if (about.uid(), about.gid()) == (self.uid, self.gid) {
            return Ok(());
        }
        fchown(file, Some(self.uid), Some(self.gid))
    }
}

impl Manner {
    /// For its owner alone: mode 0600.
    pub const PRIVATE: Self = Self { mode: 0o600, durable: true, owner: None };

    /// Readable by everyone: mode 0644.
    pub const PUBLIC: Self = Self { mode: 0o644, durable: true, owner: None };

    /// Not waiting for the disk: after a power cut the old content may be back. After a kill of this
    /// process it is not.
    #[must_use]
    pub fn hasty(self) -> Self {
        Self { durable: false, ..self }
    }

    /// For somebody else, from the moment it has its name.
    #[must_use]
    pub fn owned_by(self, owner: Option<Owner>) -> Self {
        Self { owner, ..self }
    }
}

/// Makes `path` hold `content`: at any instant, and after a kill at any instant, it holds all of the
/// old or all of the new. Missing folders are made, with mode 0700. A file that belongs to somebody
/// else stays theirs, unless the manner names another owner.
///
/// The draft has a name of its own, `<path>.draft`, so that a kill leaves at most one behind, which the
/// next call takes over; its lock keeps two writers from taking the same.
pub fn replace(path: &Path, content: &[u8], manner: Manner) -> io::Result<()> {
    replace_with(path, manner, |mut file| file.write_all(content))
}

/// The same with a content that need not be in memory as a whole: `write` is given the draft.
pub fn replace_with(
    path: &Path,
    manner: Manner,
    write: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let draft = draft_of(path);
    let file = take(&draft, PATIENCE)?;
    let written = fill(&file, write, manner, path).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // A full disk is the likely reason; half a draft must not keep it full.
        let _ = fs::remove_file(&draft);
    }
    written?;
    if manner.durable {
        File::open(parent(path))?.sync_all()?;
    }
    Ok(())
}

fn fill(
    file: &File,
    write: impl FnOnce(&File) -> io::Result<()>,
    manner: Manner,
    path: &Path,
) -> io::Result<()> {
    file.set_len(0)?;
    file.set_permissions(Permissions::from_mode(manner.mode))?;
    if let Some(owner) = manner.owner.or_else(|| owner_of(path)) {
        owner.take_over(file)?;
    }
    write(file)?;
    if manner.durable { file.sync_all() } else { Ok(()) }
}

fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".draft");
    name.into()
}

/// Opens a file and locks it for itself alone, like [`lock`], where the holder may replace or remove
/// the file: the lock counts only if the file it is on is still the one of that name.
pub fn take(path: &Path, patience: Duration) -> io::Result<File> {
    let deadline = Instant::now() + patience;
    loop {
        let file = open_to_lock(path)?;
        lock(&file, deadline.saturating_duration_since(Instant::now()))?;
        if is_named(&file, path)? {
            return Ok(file);
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

/// Whether there is no file at `path`, or nothing in it.
pub fn is_blank(path: &Path) -> bool {
    path.metadata().map_or(true, |about| about.len() == 0)
}

/// Makes the folder of `path`, with mode 0700, if it is missing.
pub fn create_parent(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(parent(path))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn owner_of(path: &Path) -> Option<Owner> {
    let about = fs::metadata(path).ok()?;
    Some(Owner { uid: about.uid(), gid: about.gid() })
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
    fn a_draft_left_by_a_kill_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(draft_of(&path), "a long draft that was never finished").unwrap();
        replace(&path, b"new", Manner::PRIVATE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn writers_of_one_file_do_not_mix_their_drafts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        thread::scope(|scope| {
            for writer in b'a'..b'e' {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..50 {
                        replace(path, &[writer; 1000], Manner::PRIVATE.hasty()).unwrap();
                        let read = fs::read(path).unwrap();
                        assert_eq!(read, [read[0]; 1000]);
                    }
                });
            }
        });
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
