use std::fmt;

use service::log::{self, Era, Format, Level};

use super::check::Check;

/// A process as logs and error texts know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name says which process it is")]
pub enum Job {
    PolicyServer,
    Internal,
    AsgSyncer,
    Migrate,
}

/// What is listened on: a name or an address of this host, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Job {
    /// The name, which follows a prefix: `cfnetworking.policy-server`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PolicyServer => "policy-server",
            Self::Internal => "policy-server-internal",
            Self::AsgSyncer => "policy-server-asg-syncer",
            Self::Migrate => "policy-server-migrate-db",
        }
    }
}

impl Address {
    pub(super) fn checked(
        check: &mut Check,
        (host_field, host): (&str, String),
        (port_field, port): (&str, i64),
    ) -> Self {
        Self { host: check.text(host_field, host), port: check.port(port_field, port) }
    }

    /// The address, to be listened on.
    pub fn as_pair(&self) -> (&str, u16) {
        (&self.host, self.port)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The crates whose details are worth a line.
const CRATES: &[&str] = &["policy_server", "policy_store"];

/// How a job logs whose readers know lager, unless `format` says otherwise.
pub(super) fn log(
    check: &mut Check,
    source: String,
    era: Era,
    level: &str,
    format: &str,
) -> log::Settings {
    let level: Level = check.log_level(level);
    let is_plain = check.word("LogFormat", format, &[("lager", false), ("json", true)]);
    let format = if is_plain { Format::Plain } else { Format::Lager { source, era } };
    log::Settings { level, format, crates: CRATES }
}
