use std::path::{Path, PathBuf};

use gocompat::json;
use policy::TagLength;
use policy_store::LeasePool;
use serde::Deserialize;
use service::{
    log::{self, Era},
    tls::{self, Identity},
};

use super::{
    Address, ConfigError, Database, Job,
    check::{Check, Faults},
    database::{self, Pool},
    job,
};

/// The internal API's process (spec/policy-server.md §10.2).
#[derive(Debug, Clone)]
pub struct Internal {
    /// Where cells come to.
    pub listen: Address,
    /// What they are shown there, and who of them is let in.
    pub tls: tls::Server,
    /// Where operators come to.
    pub debug: Address,
    /// On which port of loopback the platform asks for a sign of life.
    pub health_check_port: u16,
    /// The name of the process in logs and error texts.
    pub name: String,
    /// How the process logs.
    pub log: log::Settings,
    /// Where policies are kept.
    pub database: Database,
    /// How long tags are.
    pub tag_length: TagLength,
    /// Whether released tags are quarantined.
    pub tag_quarantine: bool,
    /// What cells can lease.
    pub lease_pool: LeasePool,
    /// Where metron is.
    pub metron_address: String,
}

#[derive(Default, Deserialize)]
#[serde(rename = "Config", default)]
struct File {
    log_prefix: String,
    listen_host: String,
    internal_listen_port: i64,
    debug_server_host: String,
    debug_server_port: i64,
    health_check_port: i64,
    ca_cert_file: String,
    server_cert_file: String,
    server_key_file: String,
    database: database::File,
    tag_length: i64,
    metron_address: String,
    log_level: String,
    max_idle_connections: i64,
    max_open_connections: i64,
    connections_max_lifetime_seconds: i64,
    // Ours.
    log_format: String,
    tag_quarantine: Option<bool>,
    overlay_network: String,
    subnet_prefix_length: i64,
}

impl Internal {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::of(&super::bytes(path)?)
    }

    pub(super) fn of(bytes: &[u8]) -> Result<Self, ConfigError> {
        let file: File = json::from_slice(bytes).map_err(ConfigError::Parse)?;
        Ok(file.checked()?)
    }
}

impl File {
    fn checked(self) -> Result<Internal, Faults> {
        let mut check = Check::default();
        let to = &mut check;
        let prefix = to.text("LogPrefix", self.log_prefix);
        let name = format!("{prefix}.{}", Job::Internal.as_str());
        let mut file = |field, path| PathBuf::from(to.text(field, path));
        let clients = Some(file("CACertFile", self.ca_cert_file));
        let certificate = file("ServerCertFile", self.server_cert_file);
        let key = file("ServerKeyFile", self.server_key_file);
        let connections = Pool {
            open: self.max_open_connections,
            idle: self.max_idle_connections,
            lifetime: self.connections_max_lifetime_seconds,
        }
        .checked(to);
        let internal = Internal {
            listen: Address::checked(
                to,
                ("ListenHost", self.listen_host),
                ("InternalListenPort", self.internal_listen_port),
            ),
            tls: tls::Server { identity: Identity { certificate, key }, clients },
            debug: Address::checked(
                to,
                ("DebugServerHost", self.debug_server_host),
                ("DebugServerPort", self.debug_server_port),
            ),
            health_check_port: to.port("HealthCheckPort", self.health_check_port),
            log: job::log(to, name.clone(), Era::Of2024, &self.log_level, &self.log_format),
            name,
            database: self.database.checked(to, connections),
            tag_length: to.tag_length("TagLength", self.tag_length),
            tag_quarantine: self.tag_quarantine.unwrap_or(true),
            lease_pool: lease_pool(to, &self.overlay_network, self.subnet_prefix_length),
            metron_address: to.text("MetronAddress", self.metron_address),
        };
        check.finish(internal)
    }
}

/// What cells can lease; nothing said means what an embedded server leases.
pub(super) fn lease_pool(check: &mut Check, network: &str, prefix_length: i64) -> LeasePool {
    let network = match network {
        "" => LeasePool::USUAL_NETWORK,
        text => text.parse().unwrap_or_else(|_| {
            check.fault("OverlayNetwork", "not an IPv4 network such as 10.255.0.0/16");
            LeasePool::USUAL_NETWORK
        }),
    };
    let length = match prefix_length {
        0 => LeasePool::USUAL_BLOCK_LENGTH,
        length => check.at_least("SubnetPrefixLength", length, 1),
    };
    LeasePool::new(network, length, LeasePool::EXPIRY).unwrap_or_else(|error| {
        check.fault("SubnetPrefixLength", error);
        LeasePool::default()
    })
}
