use std::{fmt, path::PathBuf, time::Duration};

use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use url::Url;

use crate::StoreUrlError;

/// A database server and the database on it (spec/policy-server.md §10.4). Printing one shows no
/// password.
#[derive(Debug, Clone)]
pub struct DatabaseServer {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Who we are there.
    pub user: String,
    /// How we prove it.
    pub password: SecretString,
    /// The database. Empty means the server's default for the user.
    pub database: String,
    /// What protects the connection.
    pub tls: DatabaseTls,
    /// How long connecting may take, all attempts together; also how long one operation may.
    pub timeout: Duration,
}

/// What protects a connection to a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseTls {
    /// Nothing.
    Off,
    /// Encryption, whoever the server is.
    Unverified,
    /// The server's certificate must come from one of these authorities.
    VerifyAuthority(PathBuf),
    /// It must, and it must have the server's name.
    VerifyName(PathBuf),
}

/// How many connections are kept (spec/policy-server.md §9.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// At most this many at once; 0 means no limit.
    pub most: u32,
    /// How many are kept while idle; 0 means none.
    pub idle: u32,
    /// How old one may become.
    pub lifetime: Option<Duration>,
}

impl DatabaseServer {
    /// How long is waited for a server of which nothing else is said.
    const TIMEOUT: Duration = Duration::from_secs(120);

    /// The server a URL names, with PostgreSQL's words for how it is protected: `sslmode` is `disable`
    /// (the default), `require`, `verify-ca` or `verify-full`, the last two with `sslrootcert`.
    pub(crate) fn of_url(text: &str, default_port: u16) -> Result<Self, StoreUrlError> {
        let url = Url::parse(text).map_err(|_| StoreUrlError::Unreadable)?;
        let plain = |text: &str| {
            let decoded = percent_decode_str(text).decode_utf8();
            decoded.map(String::from).map_err(|_| StoreUrlError::Unreadable)
        };
        let (mut mode, mut authority, mut timeout) = ("disable".to_owned(), None, Self::TIMEOUT);
        for (name, value) in url.query_pairs() {
            let unknown = || StoreUrlError::Parameter {
                name: name.clone().into_owned(),
                value: value.clone().into_owned(),
            };
            match &*name {
                "sslmode" => mode = value.into_owned(),
                "sslrootcert" => authority = Some(PathBuf::from(&*value)),
                "connect_timeout" => {
                    timeout = Duration::from_secs(value.parse().map_err(|_| unknown())?);
                }
                _ => return Err(unknown()),
            }
        }
        let tls = match (mode.as_str(), authority) {
            ("disable", _) => DatabaseTls::Off,
            ("require", None) => DatabaseTls::Unverified,
            ("require" | "verify-ca", Some(authority)) => DatabaseTls::VerifyAuthority(authority),
            ("verify-full", Some(authority)) => DatabaseTls::VerifyName(authority),
            _ => return Err(StoreUrlError::Parameter { name: "sslmode".to_owned(), value: mode }),
        };
        Ok(Self {
            host: url
                .host_str()
                .filter(|host| !host.is_empty())
                .ok_or(StoreUrlError::Unreadable)?
                .to_owned(),
            port: url.port().unwrap_or(default_port),
            user: plain(url.username())?,
            password: plain(url.password().unwrap_or_default())?.into(),
            database: plain(url.path().trim_start_matches('/'))?,
            tls,
            timeout,
        })
    }
}

impl Default for Connections {
    /// What BOSH sets.
    fn default() -> Self {
        Self { most: 200, idle: 10, lifetime: Some(Duration::from_secs(3600)) }
    }
}

impl fmt::Display for DatabaseServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, user, password: _, database, tls: _, timeout: _ } = self;
        write!(f, "{user}@{host}:{port}/{database}")
    }
}
