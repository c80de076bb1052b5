use std::path::Path;

use gocompat::json;
use serde::Deserialize;

use super::{AsgSyncer, ConfigError, External, Internal};

/// Every job in one process, from one file that has the keys of all their files. They agree about
/// the keys they share.
#[derive(Debug, Clone)]
pub struct All {
    /// The external API.
    pub external: External,
    /// The internal API.
    pub internal: Internal,
    /// The syncer of security groups, where the file names the API it needs (`cc_internal_url`).
    pub asg_syncer: Option<AsgSyncer>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SyncerKeys {
    cc_internal_url: String,
}

impl All {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::of(&super::bytes(path)?)
    }

    pub(super) fn of(bytes: &[u8]) -> Result<Self, ConfigError> {
        let SyncerKeys { cc_internal_url } = json::from_slice(bytes).map_err(ConfigError::Parse)?;
        let asg_syncer = match cc_internal_url.as_str() {
            "" => None,
            _ => Some(AsgSyncer::of(bytes)?),
        };
        let (external, internal) = (External::of(bytes)?, Internal::of(bytes)?);
        Ok(Self { external, internal, asg_syncer })
    }
}
