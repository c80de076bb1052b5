//! What must outlive the agent: what was promoted, and the removals that were not.

use std::{collections::BTreeSet, fs, io, path::PathBuf};

use files::Manner;
use policy::Tag;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Kind, Modes};
use crate::allowances::Allowance;

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// What the configuration wants watched only, and an operator enforced.
    pub promoted: BTreeSet<Kind>,
    /// What removed policies allowed, and still lets packets in.
    pub removed: BTreeSet<Allowance>,
}

/// Why it cannot be remembered, or is not known any more.
#[derive(Debug, Error)]
pub(crate) enum KeptError {
    #[error("reading {0}")]
    Read(PathBuf, #[source] io::Error),
    #[error("{0} is not the JSON we wrote")]
    Json(PathBuf, #[source] serde_json::Error),
    #[error("{0} has a removed policy that cannot be read")]
    Policy(PathBuf),
    #[error("writing {0}")]
    Write(PathBuf, #[source] io::Error),
}

/// The file it is remembered in, if there is to be one.
#[derive(Debug)]
pub(super) struct Memory {
    path: Option<PathBuf>,
}

/// The shape on disk.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    promoted: BTreeSet<Kind>,
    removed: Vec<RemovedOnDisk>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RemovedOnDisk {
    source: String,
    mark: u16,
    destination: String,
    destination_tag: u32,
    protocol: String,
    ports: String,
}

impl Kept {
    /// What holds when nothing is known for sure.
    pub fn everything_promoted() -> Self {
        Self { promoted: Kind::ALL.into(), removed: BTreeSet::new() }
    }

    /// A mode that is turned off, and on again later, begins anew.
    pub fn forget_modes_that_are_off(&mut self, modes: Modes) {
        self.promoted.retain(|kind| modes.has(*kind));
        if !modes.removals {
            self.removed.clear();
        }
    }
}

impl Memory {
    pub fn at(path: Option<PathBuf>) -> Self {
        Self { path }
    }

    /// What was remembered last; nothing, if nothing ever was.
    pub fn load(&self) -> Result<Kept, KeptError> {
        let Some(path) = &self.path else { return Ok(Kept::default()) };
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
            read => read.map_err(|error| KeptError::Read(path.clone(), error))?,
        };
        let OnDisk { promoted, removed } =
            serde_json::from_slice(&bytes).map_err(|error| KeptError::Json(path.clone(), error))?;
        let removed = removed.iter().map(RemovedOnDisk::parse).collect::<Option<_>>();
        Ok(Kept { promoted, removed: removed.ok_or_else(|| KeptError::Policy(path.clone()))? })
    }

    /// Remembers `kept`; blocking, as it waits for the disk.
    pub fn store(&self, kept: &Kept) -> Result<(), KeptError> {
        let Some(path) = &self.path else { return Ok(()) };
        let Kept { promoted, removed } = kept;
        let removed = removed.iter().map(RemovedOnDisk::of).collect();
        let text = serde_json::to_vec(&OnDisk { promoted: promoted.clone(), removed })
            .expect("texts and numbers are JSON");
        files::replace(path, &text, Manner::PRIVATE)
            .map_err(|error| KeptError::Write(path.clone(), error))
    }
}

impl RemovedOnDisk {
    fn of(allowance: &Allowance) -> Self {
        let Allowance { destination, source, mark, destination_tag, protocol, ports } = allowance;
        Self {
            source: source.to_string(),
            mark: *mark,
            destination: destination.to_string(),
            destination_tag: destination_tag.id(),
            protocol: protocol.to_string(),
            ports: ports.to_string(),
        }
    }

    fn parse(&self) -> Option<Allowance> {
        Some(Allowance {
            destination: self.destination.parse().ok()?,
            source: self.source.parse().ok()?,
            mark: self.mark,
            destination_tag: Tag::new(self.destination_tag)?,
            protocol: self.protocol.parse().ok()?,
            ports: self.ports.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::world::tests::allowance;

    fn memory(folder: &tempfile::TempDir) -> Memory {
        Memory::at(Some(folder.path().join("shadow.json")))
    }

    #[test]
    fn what_is_kept_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(memory(&folder).load().unwrap(), Kept::default());
        let removed = [Allowance {
            destination_tag: Tag::new(2).unwrap(),
            ..allowance("web 1 db tcp 80-90")
        }];
        let kept = Kept { promoted: [Kind::DefaultDeny].into(), removed: removed.into() };
        memory(&folder).store(&kept).unwrap();
        assert_eq!(memory(&folder).load().unwrap(), kept);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_told() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let memory = Memory::at(Some(folder.path().join("file/shadow.json")));
        assert!(matches!(memory.store(&Kept::default()), Err(KeptError::Write(..))));
    }

    proptest! {
        #[test]
        fn any_file_is_what_was_kept_or_an_error(bytes: Vec<u8>, cut in 0usize..200) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("shadow.json");
            fs::write(&path, bytes).unwrap();
            let _ = memory(&folder).load();
            let kept = Kept { removed: [allowance("web 1 db tcp 80")].into(), ..Kept::default() };
            memory(&folder).store(&kept).unwrap();
            let whole = fs::read(&path).unwrap();
            let torn = &whole[..cut.min(whole.len())];
            fs::write(&path, torn).unwrap();
            prop_assert_eq!(memory(&folder).load().is_ok(), torn.len() == whole.len());
        }
    }
}
