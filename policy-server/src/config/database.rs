use std::time::Duration;

use policy_store::{Connections, DatabaseServer, DatabaseTls, StoreUrl};
use serde::Deserialize;

use super::check::Check;

/// Which database, and how it is used (spec/policy-server.md §9.4, §10.4).
#[derive(Debug, Clone)]
pub struct Database {
    /// Where it is.
    pub url: StoreUrl,
    /// How many connections are kept.
    pub connections: Connections,
    /// How long connecting may take, and one operation.
    pub timeout: Duration,
}

/// The object `database`.
#[derive(Default, Deserialize)]
#[serde(rename = "Config", default)]
pub(super) struct File {
    r#type: String,
    user: String,
    password: String,
    host: String,
    port: i64,
    timeout: i64,
    database_name: String,
    require_ssl: bool,
    ca_cert: String,
    skip_hostname_validation: bool,
}

/// The three keys about connections, which are not in the object.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pool {
    pub open: i64,
    pub idle: i64,
    pub lifetime: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Postgres,
    MySql,
}

impl Database {
    /// How long one operation may take where a file does not say.
    pub(super) const USUAL_TIMEOUT: Duration = Duration::from_secs(30);
}

impl Pool {
    pub(super) fn checked(self, check: &mut Check) -> Connections {
        let Self { open, idle, lifetime } = self;
        let lifetime = check.seconds("MaxConnectionsLifetimeSeconds", lifetime, 0);
        Connections {
            most: check.at_least("MaxOpenConnections", open, 0),
            idle: check.at_least("MaxIdleConnections", idle, 0),
            lifetime: Some(lifetime).filter(|lifetime| !lifetime.is_zero()),
        }
    }
}

impl File {
    pub(super) fn checked(self, check: &mut Check, connections: Connections) -> Database {
        let kind = match self.r#type.as_str() {
            "mysql" => Kind::MySql,
            "postgres" => Kind::Postgres,
            other => {
                let what = if other.is_empty() { "zero value" } else { "not postgres or mysql" };
                check.fault("Database.Type", what);
                Kind::Postgres
            }
        };
        let tls = self.tls(check, kind);
        let timeout = check.seconds("Database.Timeout", self.timeout, 1);
        let server = DatabaseServer {
            host: check.text("Database.Host", self.host),
            port: check.port("Database.Port", self.port),
            user: check.text("Database.User", self.user),
            password: self.password.into(),
            database: self.database_name,
            tls,
            timeout,
        };
        let url = match kind {
            Kind::Postgres => StoreUrl::Postgres(server),
            Kind::MySql => StoreUrl::MySql(server),
        };
        Database { url, connections, timeout }
    }

    /// The existing system verifies less where PostgreSQL's host name is not to be looked at.
    fn tls(&self, check: &mut Check, kind: Kind) -> DatabaseTls {
        if !self.require_ssl {
            return DatabaseTls::Off;
        }
        if kind == Kind::Postgres && self.skip_hostname_validation {
            return DatabaseTls::Unverified;
        }
        let authority = check.text("Database.CACert", self.ca_cert.clone()).into();
        if self.skip_hostname_validation {
            DatabaseTls::VerifyAuthority(authority)
        } else {
            DatabaseTls::VerifyName(authority)
        }
    }
}
