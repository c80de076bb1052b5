//! What is remembered of an attachment, so that it can be taken down by another process, later, and
//! under another configuration.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use files::Manner;
use serde_json::{Value, json};
use thiserror::Error;

use crate::Network;

/// What went wrong with a remembered attachment.
#[derive(Debug, Error)]
pub enum CacheError {
    /// It could not be written.
    #[error("remembering a CNI result in {}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It could not be removed.
    #[error("forgetting the CNI result in {}", path.display())]
    Remove {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The memory of one attachment: a file.
pub(crate) struct Memory {
    path: PathBuf,
}

/// What it says.
#[derive(Debug, PartialEq)]
pub(crate) struct Remembered {
    pub(crate) network: Network,
    /// The answer of the last plugin that succeeded.
    pub(crate) result: Option<Value>,
}

impl Memory {
    /// Container and interface are checked names, so the file cannot be elsewhere.
    pub(crate) fn of(dir: &Path, container: &str, interface: &str) -> Self {
        Self { path: dir.join(format!("{container}-{interface}.json")) }
    }

    /// What is remembered. A file nobody can read is as good as none: plugins must cope without, and
    /// the caller has the configuration of the day.
    pub(crate) fn recall(&self) -> Option<Remembered> {
        let bytes = fs::read(&self.path).ok()?;
        let remembered = decode(&bytes);
        if remembered.is_none() {
            tracing::warn!(
                file = %self.path.display(),
                "What was remembered of a CNI attachment is unreadable and was ignored"
            );
        }
        remembered
    }

    pub(crate) fn remember(
        &self,
        network: &Network,
        result: Option<&Value>,
    ) -> Result<(), CacheError> {
        let document = json!({"network": network.to_value(), "result": result});
        files::replace(&self.path, document.to_string().as_bytes(), Manner::PRIVATE.hasty())
            .map_err(|source| CacheError::Write { path: self.path.clone(), source })
    }

    pub(crate) fn forget(&self) -> Result<(), CacheError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => {
                result.map_err(|source| CacheError::Remove { path: self.path.clone(), source })
            }
        }
    }
}

fn decode(bytes: &[u8]) -> Option<Remembered> {
    let mut document: Value = serde_json::from_slice(bytes).ok()?;
    let network = Network::from_value(document.get_mut("network")?.take()).ok()?;
    let result = document.get_mut("result").map(Value::take).filter(Value::is_object);
    Some(Remembered { network, result })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    fn network() -> Network {
        Network::from_value(json!({"name": "n", "cniVersion": "1.0.0", "type": "ptp"})).unwrap()
    }

    #[test]
    fn what_is_remembered_is_recalled_until_it_is_forgotten() {
        let dir = TempDir::new().unwrap();
        let memory = Memory::of(&dir.path().join("results"), "web", "eth0");
        assert_eq!(memory.recall(), None);
        memory.remember(&network(), None).unwrap();
        assert_eq!(memory.recall().unwrap().result, None);
        let result = json!({"ips": []});
        memory.remember(&network(), Some(&result)).unwrap();
        let expected = Remembered { network: network(), result: Some(result) };
        assert_eq!(memory.recall(), Some(expected));
        memory.forget().unwrap();
        memory.forget().unwrap();
        assert_eq!(memory.recall(), None);
    }

    #[test]
    fn a_torn_memory_is_as_good_as_none() {
        let dir = TempDir::new().unwrap();
        let memory = Memory::of(dir.path(), "web", "eth0");
        memory.remember(&network(), None).unwrap();
        let whole = fs::read(&memory.path).unwrap();
        for length in 0..whole.len() {
            fs::write(&memory.path, &whole[..length]).unwrap();
            assert_eq!(memory.recall(), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_recalled_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
