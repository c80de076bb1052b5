use std::{fmt, path::PathBuf, time::Duration};

use secrecy::SecretString;

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
