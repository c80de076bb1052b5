use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use files::{Manner, Owner};
use gocompat::json::{self, JsonError};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::{Container, file};

/// The container store at one path. Cheap to make; nothing is opened or created until it is used.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
    owner: Option<Owner>,
}

/// What the store held at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Contents {
    /// The containers, by handle.
    pub containers: Vec<Container>,
    /// The entries that describe no container (spec/cell.md §I.18).
    pub faults: Vec<Fault>,
}

/// The bytes that contents were read from, for whoever reads a store over and over.
#[derive(Debug, Default)]
pub struct Reading(Option<Vec<u8>>);

/// An entry nobody can read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("entry {handle:?} of the container store: {reason}")]
pub struct Fault {
    /// What it is filed under.
    pub handle: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Why the store could not be read or changed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The lock was not to be had.
    #[error("locking container store {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is there and cannot be read.
    #[error("reading container store {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is no JSON object: cut short, or edited by hand.
    #[error(
        "decoding container store {0}: external-networker --action restore-store writes it anew from its records, \
         as does the next container that comes or goes, and keeps this one as {0}_corrupt",
        path.display()
    )]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What the decoder says.
        #[source]
        source: JsonError,
    },
    /// The new version could not be written; the old one is still in place.
    #[error("writing container store {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An empty handle names no container.
    #[error("a container without a handle cannot be stored")]
    NoHandle,
}

impl Store {
    /// The store kept in the file at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), owner: None }
    }

    /// The same, whose files belong to this user and group after each change, so that a reader need not be
    /// root. Without, they belong to whom they did before, or to whoever creates them.
    #[must_use]
    pub fn owned_by(self, owner: Owner) -> Self {
        Self { owner: Some(owner), ..self }
    }

    /// Where it is kept.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All containers. No file, or an empty one, means none; a file that is no JSON object is an
    /// error, never an empty list: whoever read it as empty would take all policies away.
    pub fn read(&self) -> Result<Contents, StoreError> {
        let bytes = self.bytes_under_lock()?;
        self.decode(&bytes).map(|entries| Contents::of(&entries))
    }

    /// The same; `None`, if the file is to the byte what it was at the `last` reading that was believed.
    /// Times and sizes tell less: two versions of one length may be written within a tick of the clock.
    pub fn read_unless(&self, last: &Reading) -> Result<Option<(Contents, Reading)>, StoreError> {
        let bytes = self.bytes_under_lock()?;
        if last.0.as_ref() == Some(&bytes) {
            return Ok(None);
        }
        let entries = self.decode(&bytes)?;
        Ok(Some((Contents::of(&entries), Reading(Some(bytes)))))
    }

    /// Whether there is no file, or nothing in it. Whoever removes the last container leaves an empty list,
    /// so such a store was lost, or is being written by someone who truncates first.
    pub fn is_blank(&self) -> bool {
        self.bytes().is_ok_and(|bytes| is_blank(&bytes))
    }

    /// Adds `container`, or replaces the one of the same handle. An address belongs to one container
    /// at a time, so any other entry with this address is left over from a container that is gone,
    /// and goes too: policies of the dead must not reach the living (spec/cell.md §I.23).
    pub fn add(&self, container: &Container) -> Result<(), StoreError> {
        if container.handle.is_empty() {
            return Err(StoreError::NoHandle);
        }
        let _held = self.lock()?;
        let mut entries = self.entries()?;
        let stale: Vec<String> = entries
            .iter()
            .filter(|(key, entry)| {
                Container::from_entry(key, entry)
                    .is_ok_and(|other| container.shares_address(&other))
            })
            .map(|(key, _)| key.clone())
            .filter(|key| *key != container.handle)
            .collect();
        for handle in stale {
            tracing::warn!(
                container.handle = handle,
                container.ip = %container.ip,
                "A container left in the store has an address that now belongs to another; it was removed"
            );
            entries.remove(&handle);
        }
        entries.insert(container.handle.clone(), container.to_entry());
        self.write(entries)
    }

    /// Removes the entry of `handle` and returns what it said. Removing what is not there changes
    /// nothing, and an entry nobody can read is removed without an answer.
    pub fn remove(&self, handle: &str) -> Result<Option<Container>, StoreError> {
        if !self.path.exists() {
            return Ok(None);
        }
        let _held = self.lock()?;
        let mut entries = self.entries()?;
        let Some(entry) = entries.remove(handle) else {
            return Ok(None);
        };
        self.write(entries)?;
        Ok(Container::from_entry(handle, &entry).ok())
    }

    /// Writes an empty list where the store is blank: there is nobody.
    pub fn begin(&self) -> Result<(), StoreError> {
        let _held = self.lock()?;
        if self.is_blank() { self.write(Map::new()) } else { Ok(()) }
    }

    /// Replaces a store that cannot be decoded by `containers`, keeping the old file as
    /// `<store>_corrupt`; or one that is blank, while there are containers. Any other store is left
    /// alone: somebody else was faster. Says whether anything was replaced.
    pub fn rebuild(&self, containers: &[Container]) -> Result<bool, StoreError> {
        let _held = self.lock()?;
        let bytes = self.bytes()?;
        match self.decode(&bytes) {
            Err(StoreError::Corrupt { .. }) => {
                // A second name first, so that there is no moment without a store.
                let aside = file::beside(&self.path, "_corrupt");
                fs::copy(&self.path, &aside)
                    .map_err(|source| StoreError::Write { path: aside, source })?;
            }
            Ok(_) if is_blank(&bytes) && !containers.is_empty() => {}
            Ok(_) => return Ok(false),
            Err(error) => return Err(error),
        }
        let entries = containers
            .iter()
            .map(|container| (container.handle.clone(), container.to_entry()))
            .collect();
        self.write(entries)?;
        Ok(true)
    }

    fn lock(&self) -> Result<File, StoreError> {
        let path = file::beside(&self.path, "_lock");
        let locked = file::lock_exclusive(&path).and_then(|file| {
            self.owner.map_or(Ok(()), |owner| owner.take_over(&file))?;
            Ok(file)
        });
        locked.map_err(|source| StoreError::Lock { path, source })
    }

    /// What the file holds while nobody changes it.
    fn bytes_under_lock(&self) -> Result<Vec<u8>, StoreError> {
        let lock = file::beside(&self.path, "_lock");
        let _held =
            file::lock_shared(&lock).map_err(|source| StoreError::Lock { path: lock, source })?;
        self.bytes()
    }

    fn bytes(&self) -> Result<Vec<u8>, StoreError> {
        file::read(&self.path)
            .map_err(|source| StoreError::Read { path: self.path.clone(), source })
    }

    /// The entries as they stand, readable or not, so that rewriting the file loses none of them.
    fn entries(&self) -> Result<Map<String, Value>, StoreError> {
        self.decode(&self.bytes()?)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Map<String, Value>, StoreError> {
        if is_blank(bytes) {
            return Ok(Map::new());
        }
        let entries: Option<Map<String, Value>> = json::from_slice(bytes)
            .map_err(|source| StoreError::Corrupt { path: self.path.clone(), source })?;
        Ok(entries.unwrap_or_default())
    }

    /// The version moves before the data as well as after: readers that cache by version would
    /// otherwise keep the old list for ever if we die between the two.
    fn write(&self, entries: Map<String, Value>) -> Result<(), StoreError> {
        self.move_version()?;
        let text = json::to_string(&Value::Object(entries));
        files::replace(&self.path, text.as_bytes(), Manner::PRIVATE.owned_by(self.owner))
            .map_err(|source| StoreError::Write { path: self.path.clone(), source })?;
        self.move_version()
    }

    /// Readers only ask whether the number differs. One that is not a number is replaced by the time,
    /// which no counter has reached.
    fn move_version(&self) -> Result<(), StoreError> {
        let path = file::beside(&self.path, "_version");
        let moved = file::read(&path).and_then(|bytes| {
            let text = String::from_utf8_lossy(&bytes);
            let next = match text.trim() {
                "" => Some(2),
                number => number.parse().ok().and_then(|n: i64| n.checked_add(1)),
            };
            let next = next.unwrap_or_else(now_in_seconds);
            let manner = Manner::PRIVATE.hasty().owned_by(self.owner);
            files::replace(&path, next.to_string().as_bytes(), manner)
        });
        moved.map_err(|source| StoreError::Write { path, source })
    }
}

impl Reading {
    /// The same of what was read ([`Store::is_blank`]).
    pub fn is_blank(&self) -> bool {
        self.0.as_ref().is_none_or(|bytes| is_blank(bytes))
    }
}

impl Contents {
    fn of(entries: &Map<String, Value>) -> Self {
        let mut contents = Self::default();
        for (key, entry) in entries {
            match Container::from_entry(key, entry) {
                Ok(container) => contents.containers.push(container),
                Err(reason) => contents.faults.push(Fault { handle: key.clone(), reason }),
            }
        }
        contents
    }
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.trim_ascii().is_empty()
}

fn now_in_seconds() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.map_or(0, |elapsed| elapsed.as_secs().cast_signed())
}

#[cfg(test)]
mod tests;
