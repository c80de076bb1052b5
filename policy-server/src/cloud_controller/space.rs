use std::fmt;

/// What Cloud Controller knows a space by. Fit to stand in a path, so neither empty nor a dot that
/// would lead elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceGuid(String);

impl SpaceGuid {
    /// The guid `text` is, if it is one.
    pub fn new(text: &str) -> Option<Self> {
        (!matches!(text, "" | "." | "..")).then(|| Self(text.to_owned()))
    }

    /// The guid at the end of a link such as `https://api.example/v3/spaces/<guid>` (§3.4).
    pub(super) fn of_link(href: &str) -> Option<Self> {
        let (_, last) = href.rsplit_once('/')?;
        Self::new(last)
    }

    /// The guid as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SpaceGuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
