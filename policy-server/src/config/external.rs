use std::{num::NonZeroU32, path::Path, time::Duration};

use gocompat::json;
use policy::TagLength;
use reqwest::Url;
use serde::Deserialize;
use service::{
    log::{self, Era, Format},
    tls::Identity,
};

use super::{
    Address, ConfigError, Database, Job,
    check::{Check, Faults},
    database::{self, Pool},
    job,
    outbound::{self, Platform},
};
use crate::{
    ApiSettings, Profile, RateLimit,
    apps::{self, UnknownApps},
    cleaner::{self, AllGone},
};

/// The external API's process, and `migrate` (spec/policy-server.md §10.1).
#[derive(Debug, Clone)]
pub struct External {
    /// Where callers come to.
    pub listen: Address,
    /// What they are shown there; `None` for plain HTTP.
    pub tls: Option<Identity>,
    /// Where operators come to.
    pub debug: Address,
    /// What names of processes begin with in logs.
    pub log_prefix: String,
    /// How the process logs.
    pub log: log::Settings,
    /// UAA and Cloud Controller.
    pub platform: Platform,
    /// Whose word about a token counts.
    pub token_verification: TokenVerification,
    /// How long a verdict about a token is remembered; zero for not at all.
    pub token_cache: Duration,
    /// Whether callers without a scope may change policies of their own apps.
    pub self_service: bool,
    /// What callers who are no administrators are allowed.
    pub apps: apps::Settings,
    /// When policies of apps that are gone are removed.
    pub cleaner: cleaner::Settings,
    /// Where policies are kept.
    pub database: Database,
    /// How long `migrate` tries.
    pub migration_timeout: Duration,
    /// How long tags are.
    pub tag_length: TagLength,
    /// Whether released tags are quarantined.
    pub tag_quarantine: bool,
    /// Where metron is.
    pub metron_address: String,
    /// How the API behaves.
    pub api: ApiSettings,
}

/// Whose word about a token counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenVerification {
    /// UAA's, about each.
    CheckToken,
    /// That of the keys at `url`, which sign for these issuers and audiences.
    Keys {
        /// Where the keys are.
        url: Url,
        /// Who must have issued a token.
        issuers: Vec<String>,
        /// For whom one of which it must have been.
        audiences: Vec<String>,
    },
}

#[derive(Default, Deserialize)]
#[serde(rename = "Config", default)]
struct File {
    listen_host: String,
    listen_port: i64,
    log_prefix: String,
    enable_tls: bool,
    server_cert_file: String,
    server_key_file: String,
    debug_server_host: String,
    debug_server_port: i64,
    uaa_client: String,
    uaa_client_secret: String,
    uaa_ca: String,
    uaa_url: String,
    uaa_port: i64,
    cc_url: String,
    cc_ca_cert: String,
    skip_ssl_validation: bool,
    database: database::File,
    database_migration_timeout: i64,
    tag_length: i64,
    metron_address: String,
    log_level: String,
    cleanup_interval: i64,
    cc_app_request_chunk_size: i64,
    max_policies: i64,
    enable_space_developer_self_service: bool,
    allowed_cors_domains: Vec<String>,
    max_idle_connections: i64,
    max_open_connections: i64,
    connections_max_lifetime_seconds: i64,
    // Ours.
    token_verification: String,
    token_issuer: String,
    token_audience: String,
    jwks_url: String,
    token_cache_seconds: i64,
    cloud_controller_api: String,
    strict_app_check: bool,
    cleanup_may_remove_everything: bool,
    log_format: String,
    tag_quarantine: Option<bool>,
    rate_limit_per_second: i64,
    rate_limit_burst: i64,
    outbound_timeout_seconds: i64,
}

#[derive(Clone, Copy)]
enum Vouching {
    CheckToken,
    TokenKeys,
    Jwks,
}

impl External {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::of(&super::bytes(path)?)
    }

    pub(super) fn of(bytes: &[u8]) -> Result<Self, ConfigError> {
        let file: File = json::from_slice(bytes).map_err(ConfigError::Parse)?;
        Ok(file.checked()?)
    }

    /// How another job logs that reads this file.
    pub fn log_of(&self, job: Job) -> log::Settings {
        let mut settings = self.log.clone();
        if let Format::Lager { source, .. } = &mut settings.format {
            *source = self.name(job);
        }
        settings
    }

    /// The name of the process in logs and error texts.
    pub fn name(&self, job: Job) -> String {
        format!("{}.{}", self.log_prefix, job.as_str())
    }
}

impl File {
    fn checked(self) -> Result<External, Faults> {
        let mut check = Check::default();
        let to = &mut check;
        let tls = self.tls(to);
        let rate_limit = self.rate_limit(to);
        let chunk_size = self.chunk_size(to);
        let log_prefix = to.text("LogPrefix", self.log_prefix.clone());
        let source = format!("{log_prefix}.{}", Job::PolicyServer.as_str());
        let platform = outbound::File {
            uaa_client: self.uaa_client.clone(),
            uaa_client_secret: self.uaa_client_secret.clone(),
            uaa_url: self.uaa_url.clone(),
            uaa_port: self.uaa_port,
            uaa_ca: self.uaa_ca.clone(),
            cc_url: self.cc_url.clone(),
            cc_ca_cert: self.cc_ca_cert.clone(),
            skip_ssl_validation: self.skip_ssl_validation,
            cloud_controller_api: self.cloud_controller_api.clone(),
            outbound_timeout_seconds: self.outbound_timeout_seconds,
        }
        .checked(to);
        let token_verification = self.token_verification(to, &platform);
        let connections = Pool {
            open: self.max_open_connections,
            idle: self.max_idle_connections,
            lifetime: self.connections_max_lifetime_seconds,
        }
        .checked(to);
        let external = External {
            listen: Address::checked(
                to,
                ("ListenHost", self.listen_host),
                ("ListenPort", self.listen_port),
            ),
            debug: Address::checked(
                to,
                ("DebugServerHost", self.debug_server_host),
                ("DebugServerPort", self.debug_server_port),
            ),
            log: job::log(to, source, Era::Of2024, &self.log_level, &self.log_format),
            log_prefix,
            platform,
            token_verification,
            token_cache: to.seconds("TokenCacheSeconds", self.token_cache_seconds, 0),
            self_service: self.enable_space_developer_self_service,
            apps: apps::Settings {
                max_policies: to.at_least("MaxPolicies", self.max_policies, 1),
                chunk_size,
                unknown_apps: match self.strict_app_check {
                    true => UnknownApps::Refuse,
                    false => UnknownApps::Pass,
                },
            },
            cleaner: cleaner::Settings {
                interval: to.seconds("CleanupInterval", self.cleanup_interval, 1),
                chunk_size,
                all_gone: match self.cleanup_may_remove_everything {
                    true => AllGone::Believed,
                    false => AllGone::Doubted,
                },
            },
            database: self.database.checked(to, connections),
            migration_timeout: to.seconds(
                "DatabaseMigrationTimeout",
                self.database_migration_timeout,
                1,
            ),
            tag_length: to.tag_length("TagLength", self.tag_length),
            tag_quarantine: self.tag_quarantine.unwrap_or(true),
            metron_address: to.text("MetronAddress", self.metron_address),
            api: ApiSettings {
                profile: Profile::Current,
                hsts: tls.is_some(),
                allowed_origins: self.allowed_cors_domains,
                rate_limit,
            },
            tls,
        };
        check.finish(external)
    }

    fn tls(&self, check: &mut Check) -> Option<Identity> {
        if !self.enable_tls {
            return None;
        }
        let certificate = check.text("ServerCertFile", self.server_cert_file.clone());
        let key = check.text("ServerKeyFile", self.server_key_file.clone());
        Some(Identity { certificate: certificate.into(), key: key.into() })
    }

    fn rate_limit(&self, check: &mut Check) -> Option<RateLimit> {
        let per_second = check.at_least("RateLimitPerSecond", self.rate_limit_per_second, 0);
        let burst = check.at_least("RateLimitBurst", self.rate_limit_burst, 0);
        let per_second = NonZeroU32::new(per_second)?;
        // Whoever sets no burst gets what a second is worth.
        Some(RateLimit { per_second, burst: NonZeroU32::new(burst).unwrap_or(per_second) })
    }

    fn chunk_size(&self, check: &mut Check) -> std::num::NonZeroUsize {
        let size = check.at_least("CCAppRequestChunkSize", self.cc_app_request_chunk_size, 0);
        std::num::NonZeroUsize::new(size).unwrap_or(apps::Settings::CHUNK_SIZE)
    }

    fn token_verification(&self, check: &mut Check, platform: &Platform) -> TokenVerification {
        let words = [
            ("check_token", Vouching::CheckToken),
            ("token_keys", Vouching::TokenKeys),
            ("jwks", Vouching::Jwks),
        ];
        let url = match check.word("TokenVerification", &self.token_verification, &words) {
            Vouching::CheckToken => return TokenVerification::CheckToken,
            Vouching::TokenKeys => {
                let mut url = platform.uaa.url.clone();
                url.set_path("token_keys");
                url
            }
            Vouching::Jwks => check.url("JWKSURL", &self.jwks_url),
        };
        let issuers = listed(&check.text("TokenIssuer", self.token_issuer.clone()));
        let audiences = match self.token_audience.as_str() {
            "" => vec!["network".to_owned()],
            some => listed(some),
        };
        TokenVerification::Keys { url, issuers, audiences }
    }
}

/// Several names in one text.
fn listed(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}
