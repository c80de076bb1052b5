use std::{path::Path, time::Duration};

use gocompat::json;
use policy::TagLength;
use policy_store::Connections;
use reqwest::Url;
use serde::Deserialize;
use service::{
    log::{self, Era},
    tls::{Identity, Outbound},
};

use super::{
    ConfigError, Database, Job,
    check::{Check, Faults},
    database, job,
    outbound::{self, Platform, files},
};
use crate::asg::LocketSettings;

/// The security groups' process (spec/policy-server.md §10.3).
#[derive(Debug, Clone)]
pub struct AsgSyncer {
    /// The name of the process in logs and error texts.
    pub name: String,
    /// How the process logs.
    pub log: log::Settings,
    /// UAA and Cloud Controller.
    pub platform: Platform,
    /// Where Cloud Controller has the API that is for other parts of the platform.
    pub cc_internal_url: Url,
    /// Who we are there, and whom we believe.
    pub cc_internal_tls: Outbound,
    /// The time before the first look at Cloud Controller, and between any two.
    pub poll_interval: Duration,
    /// How long the list may be too restless to be read.
    pub retry_deadline: Duration,
    /// Who decides which process syncs.
    pub leader: AsgLeader,
    /// Where security groups are kept.
    pub database: Database,
    /// Where metron is.
    pub metron_address: String,
}

/// Who decides which of several processes syncs.
#[derive(Debug, Clone)]
pub enum AsgLeader {
    /// Locket.
    Locket(LocketSettings),
    /// The database, under this name of ours.
    Database {
        /// A name no other process has.
        owner: String,
    },
}

#[derive(Default, Deserialize)]
#[serde(rename = "Config", default)]
struct File {
    asg_poll_interval_seconds: i64,
    retry_deadline_seconds: i64,
    uuid: String,
    database: database::File,
    uaa_client: String,
    uaa_client_secret: String,
    uaa_url: String,
    uaa_port: i64,
    uaa_ca: String,
    cc_url: String,
    cc_ca_cert: String,
    cc_internal_url: String,
    cc_internal_ca_cert: String,
    cc_internal_client_cert: String,
    cc_internal_client_key: String,
    log_prefix: String,
    log_level: String,
    metron_address: String,
    skip_ssl_validation: bool,
    locket_address: String,
    locket_ca_cert_file: String,
    locket_client_cert_file: String,
    locket_client_key_file: String,
    locket_client_keepalive_time: i64,
    locket_client_keepalive_timeout: i64,
    // Ours.
    asg_leader: String,
    log_format: String,
    outbound_timeout_seconds: i64,
}

/// One connection is enough for what is done one after the other (§7).
const CONNECTIONS: Connections = Connections { most: 1, idle: 1, lifetime: None };

impl AsgSyncer {
    /// Tags are not touched here.
    pub const TAG_LENGTH: TagLength = TagLength::DEFAULT;

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
    fn checked(self) -> Result<AsgSyncer, Faults> {
        let mut check = Check::default();
        let to = &mut check;
        let leader = self.leader(to);
        let cc_internal_tls = self.cc_internal_tls();
        let prefix = to.text("LogPrefix", self.log_prefix);
        let name = format!("{prefix}.{}", Job::AsgSyncer.as_str());
        let platform = outbound::File {
            uaa_client: self.uaa_client,
            uaa_client_secret: self.uaa_client_secret,
            uaa_url: self.uaa_url,
            uaa_port: self.uaa_port,
            uaa_ca: self.uaa_ca,
            cc_url: self.cc_url,
            cc_ca_cert: self.cc_ca_cert,
            skip_ssl_validation: self.skip_ssl_validation,
            // It is not asked who develops where.
            cloud_controller_api: String::new(),
            outbound_timeout_seconds: self.outbound_timeout_seconds,
        };
        let syncer = AsgSyncer {
            log: job::log(to, name.clone(), Era::Of2024, &self.log_level, &self.log_format),
            name,
            platform: platform.checked(to),
            cc_internal_url: to.url("CCInternalURL", &self.cc_internal_url),
            cc_internal_tls,
            poll_interval: to.seconds("ASGPollInterval", self.asg_poll_interval_seconds, 0),
            retry_deadline: to.seconds("RetryDeadline", self.retry_deadline_seconds, 1),
            leader,
            database: self.database.checked(to, CONNECTIONS),
            metron_address: to.text("MetronAddress", self.metron_address),
        };
        check.finish(syncer)
    }

    /// Who verifies nobody shows nothing either, as in the existing system.
    fn cc_internal_tls(&self) -> Outbound {
        let names = [&self.cc_internal_client_cert, &self.cc_internal_client_key];
        let shown = !self.skip_ssl_validation && names.iter().all(|name| !name.is_empty());
        let identity = || Identity {
            certificate: self.cc_internal_client_cert.clone().into(),
            key: self.cc_internal_client_key.clone().into(),
        };
        Outbound {
            authorities: files([self.cc_internal_ca_cert.clone()]),
            identity: shown.then(identity),
            skip_verification: self.skip_ssl_validation,
        }
    }

    fn leader(&self, check: &mut Check) -> AsgLeader {
        let owner = check.text("UUID", self.uuid.clone());
        let keepalive_time = self.keepalive(check, "LocketClientKeepAliveTime", |file| {
            file.locket_client_keepalive_time
        });
        let keepalive_timeout = self.keepalive(check, "LocketClientKeepAliveTimeout", |file| {
            file.locket_client_keepalive_timeout
        });
        // Without a word, whoever has a Locket means it.
        let default = if self.locket_address.is_empty() { "database" } else { "locket" };
        let word = if self.asg_leader.is_empty() { default } else { &self.asg_leader };
        if check.word("ASGLeader", word, &[("locket", false), ("database", true)]) {
            return AsgLeader::Database { owner };
        }
        AsgLeader::Locket(LocketSettings {
            address: check.text("LocketAddress", self.locket_address.clone()),
            authority: self.locket_ca_cert_file.clone().into(),
            certificate: self.locket_client_cert_file.clone().into(),
            key: self.locket_client_key_file.clone().into(),
            keepalive_time,
            keepalive_timeout,
            owner,
            lifetime: None,
        })
    }

    fn keepalive(&self, check: &mut Check, field: &str, seconds: fn(&Self) -> i64) -> Duration {
        check.seconds(field, seconds(self), 0)
    }
}
