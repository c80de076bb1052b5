use std::{fmt, str::FromStr, sync::Arc};

use thiserror::Error;

/// The strictly increasing number every change takes (design §2.1). 0 means "before any change".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// The life of a database: a new one begins when it is created or restored from a backup, so that
/// revisions of different lives are never compared (design §2.3).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Life(Arc<str>);

/// What an `ETag` of the internal API says: revision `revision` of life `life`.
///
/// Printed as `<life>.<revision>`, the form it has between the quotes of the header.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Version {
    /// Which database life the revision belongs to.
    pub life: Life,
    /// The revision of what was asked for.
    pub revision: Revision,
}

const LONGEST_LIFE: usize = 64;

/// The text is not `<life>.<revision>`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a version of the form <life>.<revision>")]
pub struct ParseVersionError(pub String);

impl Life {
    /// A life by its name: up to 64 letters, digits and dashes. Ours are UUIDs; what is said of others is
    /// kept in columns that have an end.
    pub fn new(name: &str) -> Result<Self, ParseVersionError> {
        let readable = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if !(1..=LONGEST_LIFE).contains(&name.len()) || !name.bytes().all(readable) {
            return Err(ParseVersionError(name.to_owned()));
        }
        Ok(Self(name.into()))
    }

    /// The life's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Version {
    /// The header value, quotes included.
    pub fn to_etag(&self) -> String {
        format!("\"{self}\"")
    }

    /// Reads a header value; a weak `W/` prefix is let go, since proxies add it.
    pub fn from_etag(text: &str) -> Result<Self, ParseVersionError> {
        let refused = || ParseVersionError(text.to_owned());
        let text = text.trim();
        let strong = text.strip_prefix("W/").unwrap_or(text);
        let inner = strong.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        inner.ok_or_else(refused)?.parse()
    }

    /// Whether this is `other` or a later revision of the same life.
    pub fn includes(&self, other: &Self) -> bool {
        self.life == other.life && self.revision >= other.revision
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.life.as_str(), self.revision)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Version {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, ParseVersionError> {
        let refused = || ParseVersionError(text.to_owned());
        let (life, revision) = text.rsplit_once('.').ok_or_else(refused)?;
        if !revision.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refused());
        }
        Ok(Self {
            life: Life::new(life)?,
            revision: Revision(revision.parse().map_err(|_| refused())?),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_etag_comes_back_as_the_version_it_was(life in "[a-z0-9-]{1,36}", revision: u64) {
            let version = Version { life: Life::new(&life).unwrap(), revision: Revision(revision) };
            prop_assert_eq!(Version::from_etag(&version.to_etag()), Ok(version));
        }

        #[test]
        fn any_text_is_an_etag_or_refused(text in ".*") {
            let _ = Version::from_etag(&text);
        }
    }

    #[test]
    fn a_life_ends_where_the_columns_that_keep_it_may() {
        let etag = |length: usize| format!("\"{}.7\"", "a".repeat(length));
        assert!(Version::from_etag(&etag(64)).is_ok());
        for length in [0, 65, 300] {
            assert!(Version::from_etag(&etag(length)).is_err(), "{length}");
            assert!(Life::new(&"a".repeat(length)).is_err(), "{length}");
        }
    }

    #[test]
    fn versions_of_different_lives_never_include_each_other() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert!(version("a.5").includes(&version("a.5")));
        assert!(!version("a.4").includes(&version("a.5")));
        assert!(!version("b.9").includes(&version("a.5")));
    }
}
