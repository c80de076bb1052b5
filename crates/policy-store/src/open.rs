use std::{fmt, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use policy::TagLength;
use thiserror::Error;

use crate::{
    Connections, DatabaseServer, PolicyStore, StoreError, mysql::MySql, postgres::Postgres,
    sqlite::Sqlite, store::Store,
};

const POSTGRES_PORT: u16 = 5432;
const MYSQL_PORT: u16 = 3306;

/// Which store, and where. Printing one never shows a password.
#[derive(Clone)]
#[non_exhaustive]
pub enum StoreUrl {
    /// One file on this machine: `sqlite:///var/lib/netman/netman.db`.
    Sqlite(PathBuf),
    /// A PostgreSQL server: `postgres://user:password@host:5432/netman?sslmode=verify-full&sslrootcert=ca.pem`.
    Postgres(DatabaseServer),
    /// MySQL or MariaDB, with the same words: `mysql://user:password@host:3306/netman?sslmode=require`.
    MySql(DatabaseServer),
}

/// The text is no URL of a store. It may hold a password, so it is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each text says what the variant means")]
pub enum StoreUrlError {
    #[error("expected a database URL such as sqlite:///var/lib/netman/netman.db")]
    NoScheme,
    #[error("no store speaks {0:?}; known: sqlite, postgres, mysql")]
    UnknownScheme(String),
    #[error("the database URL names no file")]
    NoPath,
    #[error("the database URL is unreadable: expected scheme://user:password@host:port/database")]
    Unreadable,
    #[error("the database URL has an unknown {name}={value}")]
    Parameter { name: String, value: String },
}

/// Which tables opening a store may make or change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// All of them: a database of our own, or the one run of `migrate` in a deployment.
    Whole,
    /// Only ours. Those of cf-networking must be there, as its servers have always demanded
    /// (spec/policy-server.md §1).
    Beside,
}

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Decides how many tags are made when the store is new. A store that has tags keeps them.
    pub tag_length: TagLength,
    /// Whose tables may be made or changed.
    pub schema: Schema,
    /// How many connections are kept.
    pub connections: Connections,
    /// Whether released tags are quarantined where cells report (design §2.4).
    pub tag_quarantine: bool,
    /// How many revisions the log of changes keeps. Servers look every 200 ms; one that was away for
    /// longer takes the whole state, which costs little more.
    pub log_kept: u64,
    /// How long one operation may take before it fails.
    pub patience: Duration,
}

/// Opens the store, makes it if there is none, and brings its schema up to date.
pub async fn open(url: &StoreUrl, options: &Options) -> Result<Arc<dyn PolicyStore>, StoreError> {
    Ok(match url {
        StoreUrl::Sqlite(path) => Arc::new(Store::on(Sqlite::open(path, options).await?, options)),
        StoreUrl::Postgres(server) => {
            Arc::new(Store::on(Postgres::open(server, options).await?, options))
        }
        StoreUrl::MySql(server) => {
            Arc::new(Store::on(MySql::open(server, options).await?, options))
        }
    })
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tag_length: TagLength::DEFAULT,
            schema: Schema::Whole,
            connections: Connections::default(),
            tag_quarantine: true,
            log_kept: 10_000,
            patience: Duration::from_secs(120),
        }
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
            "postgres" | "postgresql" => {
                Ok(Self::Postgres(DatabaseServer::of_url(text, POSTGRES_PORT)?))
            }
            "mysql" => Ok(Self::MySql(DatabaseServer::of_url(text, MYSQL_PORT)?)),
            other => Err(StoreUrlError::UnknownScheme(other.to_owned())),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::Postgres(server) => write!(f, "postgres://{server}"),
            Self::MySql(server) => write!(f, "mysql://{server}"),
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
        assert!(matches!(&url, StoreUrl::Sqlite(path) if path.ends_with("tmp/a.db")));
        assert_eq!(url.to_string(), "sqlite:///tmp/a.db");
        let refused = |text: &str| text.parse::<StoreUrl>().unwrap_err();
        assert_eq!(refused("sqlite:"), StoreUrlError::NoPath);
        assert_eq!(refused(""), StoreUrlError::NoScheme);
    }

    #[test]
    fn a_refused_url_keeps_its_password_to_itself() {
        let error = "oracle://scott:tiger@db".parse::<StoreUrl>().unwrap_err();
        assert_eq!(error.to_string(), "no store speaks \"oracle\"; known: sqlite, postgres, mysql");
        assert!(!format!("{error:?}").contains("tiger"));
        let url: StoreUrl = "postgres://scott:tiger@db:5433/netman".parse().unwrap();
        assert_eq!(url.to_string(), "postgres://scott@db:5433/netman");
        assert!(!format!("{url:?}").contains("tiger"));
    }
}
