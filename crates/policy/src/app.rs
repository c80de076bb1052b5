use std::{fmt, str::FromStr, sync::Arc};

use thiserror::Error;

/// The identity policies speak of: a Cloud Foundry app GUID in practice, any non-empty text by
/// contract (spec/policy-server.md §2.6). Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppGuid(Arc<str>);

/// An app GUID must not be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an app guid may not be empty")]
pub struct EmptyAppGuid;

impl AppGuid {
    /// The identity as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AppGuid {
    type Err = EmptyAppGuid;

    fn from_str(text: &str) -> Result<Self, EmptyAppGuid> {
        if text.is_empty() { Err(EmptyAppGuid) } else { Ok(Self(text.into())) }
    }
}

impl fmt::Display for AppGuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AppGuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}
