//! What we ask UAA: whom a caller's token speaks for, and for a token of our own
//! (spec/policy-server.md §3.1, §3.3).

use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder, Url, header::CONTENT_TYPE};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::{
    metrics::{Metrics, Outcome, Peer},
    outbound::{self, CallError},
};

/// No answer of UAA is longer.
const LONGEST: usize = 1 << 20;

/// Where UAA is, and who we are there.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Scheme, host and port.
    pub url: Url,
    /// Our client's name. It needs the authorities `uaa.resource` and
    /// `cloud_controller.admin_read_only`.
    pub client: String,
    /// Our client's secret.
    pub secret: SecretString,
    /// How long one call may take altogether.
    pub timeout: Duration,
}

impl Settings {
    /// The time a call is given unless told otherwise.
    pub const TIMEOUT: Duration = Duration::from_secs(5);
}

/// UAA, as its client.
pub struct Uaa {
    settings: Settings,
    http: Client,
    metrics: Metrics,
}

/// Answer of `check_token`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CheckedToken {
    pub scope: Vec<String>,
    pub sub: String,
    pub user_name: String,
    pub client_id: String,
    /// Seconds since 1970. Nobody relied on it before us, so whatever else is there means nothing.
    pub exp: serde_json::Value,
}

/// Answer of `oauth/token`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ClientToken {
    pub access_token: String,
    /// Seconds from now; see `CheckedToken::exp`.
    pub expires_in: serde_json::Value,
}

impl Uaa {
    /// `http` comes from [`outbound::client`].
    pub fn new(settings: Settings, http: Client, metrics: Metrics) -> Self {
        Self { settings, http, metrics }
    }

    /// The body is exactly `token=<token>`, unescaped: callers must see to it that the token has no
    /// characters that mean something in a form.
    pub(super) async fn check_token(&self, token: &str) -> Result<CheckedToken, CallError> {
        self.ask(self.post("check_token", format!("token={token}"))).await
    }

    /// A token for ourselves.
    pub(crate) async fn client_token(&self) -> Result<ClientToken, CallError> {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("client_id", &self.settings.client)
            .append_pair("grant_type", "client_credentials")
            .finish();
        self.ask(self.post("oauth/token", form)).await
    }

    fn post(&self, path: &str, form: String) -> RequestBuilder {
        let Settings { url, client, secret, timeout: _ } = &self.settings;
        self.http
            .post(format!("{}/{path}", url.as_str().trim_end_matches('/')))
            .basic_auth(client, Some(secret.expose_secret()))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form)
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, CallError> {
        let began = Instant::now();
        let answer =
            outbound::within(self.settings.timeout, outbound::json(request, LONGEST)).await;
        self.metrics.outbound(Peer::Uaa, Outcome::of(&answer), began.elapsed());
        answer
    }
}
