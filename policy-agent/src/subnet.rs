//! The subnet file, as far as it can be read.

use std::{fs, io, path::Path};

use policy::{CellSubnet, ParseCellSubnetError};
use thiserror::Error;

/// Why it says nothing usable.
#[derive(Debug, Error)]
pub(crate) enum SubnetError {
    #[error("there is no subnet file {0} yet; is the overlay daemon running?")]
    Absent(String),
    #[error("reading subnet file {path}")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("understanding subnet file {path}")]
    Parse {
        path: String,
        #[source]
        source: ParseCellSubnetError,
    },
}

/// What the file at `path` says.
pub(crate) fn read(path: &Path) -> Result<CellSubnet, SubnetError> {
    let name = || path.display().to_string();
    match fs::read_to_string(path) {
        Ok(text) => text.parse().map_err(|source| SubnetError::Parse { path: name(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SubnetError::Absent(name())),
        Err(source) => Err(SubnetError::Read { path: name(), source }),
    }
}
