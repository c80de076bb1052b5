//! UAA and Cloud Controller, as a configuration describes them.

use std::{sync::Arc, time::Duration};

use service::tls::Outbound;

use super::RunError;
use crate::{
    Callers,
    auth::{CheckToken, Remembering, TokenKeys, Uaa, Verifier, token_keys},
    cloud_controller::CloudController,
    config::{External, Platform, TokenVerification},
    metrics::Metrics,
    outbound,
};

/// Those two, ready to be asked.
pub(super) struct Services {
    pub uaa: Arc<Uaa>,
    pub cloud_controller: Arc<CloudController>,
    http: reqwest::Client,
}

impl Services {
    pub(super) fn of(platform: &Platform, metrics: &Metrics) -> Result<Self, RunError> {
        let Platform { uaa, cloud_controller, tls, timeout: _ } = platform;
        let http = client(tls)?;
        let uaa = Arc::new(Uaa::new(uaa.clone(), http.clone(), metrics.clone()));
        let cloud_controller = CloudController::new(
            cloud_controller.clone(),
            http.clone(),
            uaa.clone(),
            metrics.clone(),
        );
        Ok(Self { uaa, cloud_controller: Arc::new(cloud_controller), http })
    }
}

/// Who callers are, and what they may touch.
pub(super) fn callers(config: &External, metrics: &Metrics) -> Result<Callers, RunError> {
    let services = Services::of(&config.platform, metrics)?;
    let verifier: Arc<dyn Verifier> = match &config.token_verification {
        TokenVerification::CheckToken => Arc::new(CheckToken::new(services.uaa)),
        TokenVerification::Keys { url, issuers, audiences } => {
            let settings =
                token_keys::Settings::new(url.clone(), issuers.clone(), audiences.clone());
            let timeout = config.platform.timeout;
            let settings = token_keys::Settings { timeout, ..settings };
            Arc::new(TokenKeys::start(settings, services.http)?)
        }
    };
    Ok(Callers {
        verifier: remembering(verifier, config.token_cache),
        self_service: config.self_service,
        directory: services.cloud_controller,
        apps: config.apps,
        cleaner: config.cleaner,
    })
}

fn remembering(verifier: Arc<dyn Verifier>, at_most: Duration) -> Arc<dyn Verifier> {
    if at_most.is_zero() { verifier } else { Arc::new(Remembering::new(verifier, at_most)) }
}

/// A client that believes whom `tls` names.
pub(super) fn client(tls: &Outbound) -> Result<reqwest::Client, RunError> {
    let tls = tls.client().map_err(RunError::Tls)?;
    outbound::client(reqwest::Client::builder().tls_backend_preconfigured(tls))
        .map_err(RunError::Client)
}
