//! Kernel settings of the calling thread's network namespace. Call inside [`super::Netns::run`] for
//! another one.

use std::{fs, io, path::PathBuf};

use thiserror::Error;

/// What went wrong with a setting.
#[derive(Debug, Error)]
pub enum SysctlError {
    /// A name that leads out of the settings.
    #[error("{0:?} is not the name of a kernel setting")]
    Name(String),
    /// It cannot be read; mostly because there is none of this name.
    #[error("reading kernel setting {name}")]
    Read {
        /// Which one.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It cannot be written.
    #[error("setting {name} to {value}")]
    Write {
        /// Which one.
        name: String,
        /// To what.
        value: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The value of a setting. Names are paths (`net/ipv4/conf/eth0.5/rp_filter`), since interface names
/// may have dots.
pub fn read(name: &str) -> Result<String, SysctlError> {
    let text = fs::read_to_string(path(name)?);
    let text = text.map_err(|source| SysctlError::Read { name: name.to_owned(), source })?;
    Ok(text.trim().to_owned())
}

/// Makes `value` the value of a setting and says whether it was another one before. One that is right
/// already is not written: hosts may have settings mounted read-only.
pub fn write(name: &str, value: &str) -> Result<bool, SysctlError> {
    if read(name)? == value {
        return Ok(false);
    }
    fs::write(path(name)?, value).map_err(|source| SysctlError::Write {
        name: name.to_owned(),
        value: value.to_owned(),
        source,
    })?;
    Ok(true)
}

fn path(name: &str) -> Result<PathBuf, SysctlError> {
    if name.is_empty() || name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(SysctlError::Name(name.to_owned()));
    }
    Ok(PathBuf::from("/proc/sys").join(name))
}
