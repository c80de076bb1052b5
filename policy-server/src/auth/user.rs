use std::fmt;

/// What Cloud Controller knows a user or a client by: `sub` in a token. Fit to stand in a path, so
/// neither empty nor a dot that would lead elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserGuid(String);

impl UserGuid {
    /// The guid in `sub`, if there is one.
    pub fn new(sub: &str) -> Option<Self> {
        (!matches!(sub, "" | "." | "..")).then(|| Self(sub.to_owned()))
    }

    /// The guid as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserGuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
