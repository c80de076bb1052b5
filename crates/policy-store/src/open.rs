use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

use policy::TagLength;
use thiserror::Error;

use crate::{PolicyStore, StoreError, sqlite::Sqlite};

/// Which store, and where. Printing one never shows a password.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreUrl {
    /// One file on this machine: `sqlite:///var/lib/netman/netman.db`.
    Sqlite(PathBuf),
}

/// The text is no URL of a store. It may hold a password, so it is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each text says what the variant means")]
pub enum StoreUrlError {
    #[error("expected a database URL such as sqlite:///var/lib/netman/netman.db")]
    NoScheme,
    #[error("no store speaks {0:?}; known: sqlite")]
    UnknownScheme(String),
    #[error("the database URL names no file")]
    NoPath,
}

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Decides how many tags are made when the store is new. A store that has tags keeps them.
    pub tag_length: TagLength,
}

/// Opens the store, makes it if there is none, and brings its schema up to date.
pub async fn open(url: &StoreUrl, options: &Options) -> Result<Arc<dyn PolicyStore>, StoreError> {
    match url {
        StoreUrl::Sqlite(path) => Ok(Arc::new(Sqlite::open(path, options).await?)),
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { tag_length: TagLength::DEFAULT }
    }
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        let (scheme, rest) = text.split_once(':').ok_or(StoreUrlError::NoScheme)?;
        match scheme {
            "sqlite" => match rest.strip_prefix("//").unwrap_or(rest) {
                "" => Err(StoreUrlError::NoPath),
                path => Ok(Self::Sqlite(path.into())),
            },
            other => Err(StoreUrlError::UnknownScheme(other.to_owned())),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_decides() {
        let url: StoreUrl = "sqlite:///tmp/a.db".parse().unwrap();
        assert_eq!(url, StoreUrl::Sqlite("/tmp/a.db".into()));
        assert_eq!(url.to_string().parse(), Ok(url));
        assert_eq!("sqlite:".parse::<StoreUrl>(), Err(StoreUrlError::NoPath));
        assert_eq!("".parse::<StoreUrl>(), Err(StoreUrlError::NoScheme));
    }

    #[test]
    fn a_refused_url_keeps_its_password_to_itself() {
        let error = "oracle://scott:tiger@db".parse::<StoreUrl>().unwrap_err();
        assert_eq!(error.to_string(), "no store speaks \"oracle\"; known: sqlite");
        assert!(!format!("{error:?}").contains("tiger"));
    }
}
