use std::{path::PathBuf, time::Duration};

use reqwest::Url;
use service::tls::Outbound;

use super::check::Check;
use crate::{
    auth::uaa,
    cloud_controller::{self, Api},
};

/// How long a question to another service may take, unless a file says otherwise.
const TIMEOUT: i64 = 10;

/// The platform's other services, and how they are told from impostors.
#[derive(Debug, Clone)]
pub struct Platform {
    /// Who vouches for callers, and for us.
    pub uaa: uaa::Settings,
    /// Who knows apps and spaces.
    pub cloud_controller: cloud_controller::Settings,
    /// Whom we believe to be them.
    pub tls: Outbound,
    /// How long one question may take.
    pub timeout: Duration,
}

/// The keys about it, as they are in a file.
pub(super) struct File {
    pub uaa_client: String,
    pub uaa_client_secret: String,
    pub uaa_url: String,
    pub uaa_port: i64,
    pub uaa_ca: String,
    pub cc_url: String,
    pub cc_ca_cert: String,
    pub skip_ssl_validation: bool,
    pub cloud_controller_api: String,
    pub outbound_timeout_seconds: i64,
}

impl File {
    pub(super) fn checked(self, check: &mut Check) -> Platform {
        let timeout = self.timeout(check);
        let mut url = check.url("UAAURL", &self.uaa_url);
        let port = check.port("UAAPort", self.uaa_port);
        // An address that has a host can have a port, whatever it is.
        let _ = url.set_port(Some(port));
        let uaa = uaa::Settings {
            url,
            client: check.text("UAAClient", self.uaa_client),
            secret: check.text("UAAClientSecret", self.uaa_client_secret).into(),
            timeout,
        };
        let apis = [("v2", Api::V2), ("v3", Api::V3)];
        let cloud_controller = cloud_controller::Settings {
            url: check.url("CCURL", &self.cc_url),
            api: check.word("CloudControllerAPI", &self.cloud_controller_api, &apis),
            timeout,
        };
        let tls = Outbound {
            authorities: files([self.uaa_ca, self.cc_ca_cert]),
            identity: None,
            skip_verification: self.skip_ssl_validation,
        };
        Platform { uaa, cloud_controller, tls, timeout }
    }

    fn timeout(&self, check: &mut Check) -> Duration {
        let seconds = match self.outbound_timeout_seconds {
            0 => TIMEOUT,
            seconds => seconds,
        };
        check.seconds("OutboundTimeoutSeconds", seconds, 1)
    }
}

/// UAA alone, whose address has its port: all that was asked in 2016.
pub(super) fn uaa_of_2016(url: Url, client: String, secret: String) -> uaa::Settings {
    let timeout = Duration::from_secs(TIMEOUT.unsigned_abs());
    uaa::Settings { url, client, secret: secret.into(), timeout }
}

/// The files that are named.
pub(super) fn files<const N: usize>(paths: [String; N]) -> Vec<PathBuf> {
    paths.into_iter().filter(|path| !path.is_empty()).map(PathBuf::from).collect()
}
