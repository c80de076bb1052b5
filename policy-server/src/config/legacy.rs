use std::path::PathBuf;

use gocompat::json;
use policy::TagLength;
use policy_store::{Connections, LeasePool, StoreUrl};
use serde::Deserialize;
use service::{
    log::{self, Era},
    tls::{self, Identity, Outbound},
};

use super::{
    Address, ConfigError, Database, Job,
    check::{Check, Faults},
    driver_string, internal, job,
    outbound::uaa_of_2016,
};
use crate::{ApiSettings, Profile, auth::uaa};

/// Both APIs in one process, as in 2016 (spec/policy-server.md §10.5, §14.3). Hardly anything is
/// demanded of the file: what is missing is noticed where it is needed, as it was then.
#[derive(Debug, Clone)]
pub struct Legacy {
    /// Where callers come to.
    pub listen: Address,
    /// Where cells come to.
    pub internal_listen: Address,
    /// What cells are shown, and who of them is let in.
    pub tls: tls::Server,
    /// Where operators come to, if they do.
    pub debug: Option<Address>,
    /// How the process logs.
    pub log: log::Settings,
    /// Who vouches for callers; `None` if the file does not say.
    pub uaa: Option<uaa::Settings>,
    /// Whom we believe to be UAA.
    pub uaa_tls: Outbound,
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
    /// How the APIs behave.
    pub api: ApiSettings,
}

#[derive(Default, Deserialize)]
#[serde(rename = "Config", default)]
struct File {
    listen_host: String,
    listen_port: i64,
    internal_listen_port: i64,
    ca_cert_file: String,
    server_cert_file: String,
    server_key_file: String,
    uaa_client: String,
    uaa_client_secret: String,
    uaa_url: String,
    skip_ssl_validation: bool,
    database: DatabaseFile,
    tag_length: i64,
    metron_address: String,
    // Ours.
    debug_server_host: String,
    debug_server_port: i64,
    log_level: String,
    log_format: String,
    tag_quarantine: bool,
    overlay_network: String,
    subnet_prefix_length: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DatabaseFile {
    r#type: String,
    connection_string: String,
}

impl Legacy {
    pub(super) fn of(bytes: &[u8]) -> Result<Self, ConfigError> {
        let file: File = json::from_slice(bytes).map_err(ConfigError::Parse)?;
        Ok(file.checked()?)
    }
}

impl File {
    fn checked(self) -> Result<Legacy, Faults> {
        let mut check = Check::default();
        let to = &mut check;
        let name = Job::PolicyServer.as_str().to_owned();
        let url = driver_string::parse(&self.database.r#type, &self.database.connection_string);
        let url = url.unwrap_or_else(|error| {
            to.fault("Database.ConnectionString", error);
            StoreUrl::Sqlite(PathBuf::new())
        });
        let uaa = match self.uaa_url.as_str() {
            "" => None,
            url => {
                Some(uaa_of_2016(to.url("UAAURL", url), self.uaa_client, self.uaa_client_secret))
            }
        };
        let debug = (self.debug_server_port != 0).then(|| Address {
            host: or_else(&self.debug_server_host, "127.0.0.1"),
            port: to.port("DebugServerPort", self.debug_server_port),
        });
        let host = or_else(&self.listen_host, "0.0.0.0");
        let legacy = Legacy {
            listen: Address {
                host: host.clone(),
                port: to.at_least("ListenPort", self.listen_port, 0),
            },
            internal_listen: Address {
                host,
                port: to.at_least("InternalListenPort", self.internal_listen_port, 0),
            },
            tls: tls::Server {
                identity: Identity {
                    certificate: self.server_cert_file.into(),
                    key: self.server_key_file.into(),
                },
                clients: Some(self.ca_cert_file.into()),
            },
            debug,
            log: job::log(to, name, Era::Of2016, &self.log_level, &self.log_format),
            uaa,
            uaa_tls: Outbound {
                skip_verification: self.skip_ssl_validation,
                ..Outbound::default()
            },
            database: Database {
                url,
                connections: Connections { most: 0, idle: 2, lifetime: None },
                timeout: Database::USUAL_TIMEOUT,
            },
            tag_length: match self.tag_length {
                0 => TagLength::DEFAULT,
                length => to.tag_length("TagLength", length),
            },
            tag_quarantine: self.tag_quarantine,
            lease_pool: internal::lease_pool(to, &self.overlay_network, self.subnet_prefix_length),
            metron_address: self.metron_address,
            api: ApiSettings { profile: Profile::Legacy, ..ApiSettings::default() },
        };
        check.finish(legacy)
    }
}

fn or_else(host: &str, otherwise: &str) -> String {
    if host.is_empty() { otherwise } else { host }.to_owned()
}
