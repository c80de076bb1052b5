//! The pool of host ports, in a file that all networkers of the cell share (spec/cell.md §B.4):
//! `{"acquired_ports":{"<handle>":[61000,61001]}}`.
//!
//! The lock is on the file itself, as the predecessor has it; but where it truncates and writes, the
//! file is replaced by rename, so that no crash leaves half a list.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use gocompat::json::{self, JsonError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{handle::Handle, lock::Lock};

/// Nobody holds the file for longer than reading and writing it once takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pool.
#[derive(Debug, Clone)]
pub(crate) struct PortPool {
    pub path: PathBuf,
    /// The ports that are given out.
    pub range: RangeInclusive<u16>,
}

/// Why ports were not given out or taken back.
#[derive(Debug, Error)]
pub(crate) enum PortsError {
    #[error("port pool exhausted")]
    Exhausted,
    #[error("locking state file {}", path.display())]
    Lock {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("reading state file {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("decoding state file: {}", path.display())]
    Corrupt {
        path: PathBuf,
        #[source]
        source: JsonError,
    },
    #[error("writing state file {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The file. Keys are texts, not handles: another program's entries stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Acquired {
    acquired_ports: BTreeMap<String, Vec<u16>>,
}

impl PortPool {
    /// Gives `count` ports to `handle`, the lowest that are free, beside those it has.
    pub fn acquire(&self, handle: &Handle, count: usize) -> Result<Vec<u16>, PortsError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let (lock, mut acquired) = self.open()?;
        let ports = acquired.acquire(handle, count, self.range.clone())?;
        self.write(lock, &acquired)?;
        Ok(ports)
    }

    /// Takes back one port of `handle`.
    pub fn release(&self, handle: &Handle, port: u16) -> Result<(), PortsError> {
        self.update(|acquired| acquired.release(handle, port))
    }

    /// Takes back all ports of `handle`.
    pub fn release_all(&self, handle: &Handle) -> Result<(), PortsError> {
        if !self.path.exists() {
            return Ok(());
        }
        self.update(|acquired| acquired.release_all(handle))
    }

    /// Starts over with a file that cannot be decoded, or that is blank, from what the containers
    /// themselves are known to have, if they have anything. Any other file is left alone. Says whether
    /// anything was replaced.
    pub fn rebuild(
        &self,
        known: impl IntoIterator<Item = (String, Vec<u16>)>,
    ) -> Result<bool, PortsError> {
        let mut lock = self.lock()?;
        let known = known.into_iter().filter(|(_, ports)| !ports.is_empty());
        let acquired = Acquired { acquired_ports: known.collect() };
        match self.read(&mut lock) {
            Err(PortsError::Corrupt { .. }) => {}
            Ok(_) if files::is_blank(&self.path) && acquired != Acquired::default() => {}
            other => return other.map(|_| false),
        }
        self.write(lock, &acquired)?;
        Ok(true)
    }

    fn update(&self, change: impl FnOnce(&mut Acquired)) -> Result<(), PortsError> {
        let (lock, before) = self.open()?;
        let mut acquired = before.clone();
        change(&mut acquired);
        if acquired == before { Ok(()) } else { self.write(lock, &acquired) }
    }

    fn lock(&self) -> Result<Lock, PortsError> {
        Lock::take(&self.path, PATIENCE)
            .map_err(|source| PortsError::Lock { path: self.path.clone(), source })
    }

    fn open(&self) -> Result<(Lock, Acquired), PortsError> {
        let mut lock = self.lock()?;
        let acquired = self.read(&mut lock)?;
        Ok((lock, acquired))
    }

    fn read(&self, lock: &mut Lock) -> Result<Acquired, PortsError> {
        let mut bytes = Vec::new();
        lock.file()
            .read_to_end(&mut bytes)
            .map_err(|source| PortsError::Read { path: self.path.clone(), source })?;
        Acquired::decode(&bytes)
            .map_err(|source| PortsError::Corrupt { path: self.path.clone(), source })
    }

    fn write(&self, lock: Lock, acquired: &Acquired) -> Result<(), PortsError> {
        lock.replace(json::to_string(acquired).as_bytes())
            .map_err(|source| PortsError::Write { path: self.path.clone(), source })
    }
}

impl Acquired {
    fn decode(bytes: &[u8]) -> Result<Self, JsonError> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        json::from_slice_prefix(bytes)
    }

    fn acquire(
        &mut self,
        handle: &Handle,
        count: usize,
        range: RangeInclusive<u16>,
    ) -> Result<Vec<u16>, PortsError> {
        let taken: BTreeSet<u16> = self.acquired_ports.values().flatten().copied().collect();
        let ports: Vec<u16> = range.filter(|port| !taken.contains(port)).take(count).collect();
        if ports.len() < count {
            return Err(PortsError::Exhausted);
        }
        let of_handle = self.acquired_ports.entry(handle.to_string()).or_default();
        of_handle.extend_from_slice(&ports);
        Ok(ports)
    }

    fn release(&mut self, handle: &Handle, port: u16) {
        if let Some(ports) = self.acquired_ports.get_mut(handle.as_str()) {
            ports.retain(|other| *other != port);
            if ports.is_empty() {
                self.release_all(handle);
            }
        }
    }

    fn release_all(&mut self, handle: &Handle) {
        self.acquired_ports.remove(handle.as_str());
    }
}

#[cfg(test)]
mod tests;
