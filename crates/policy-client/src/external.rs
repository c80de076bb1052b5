//! The external API, as people and scripts speak it: a bearer token, blocking calls, no runtime
//! (spec/policy-server.md §2).
//!
//! Nothing is retried, no redirect followed and no proxy taken from the environment: a token goes to
//! the server that was named and nowhere else.

mod audit;
mod call;
mod error;
mod policies;
mod status;
mod token;

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use rustls::crypto::aws_lc_rs;
use ureq::{
    Agent,
    http::{Uri, uri::Scheme},
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

pub use error::{ClientError, SettingsError};
pub use policies::Filter;
pub use token::{Token, TokenError};

/// What Cloud Controller advertises is the address of the API, not of the server.
const API: &str = "/networking/v1/external";

/// Where the server is and how to prove who we are.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `http://` or `https://`, host and port, with or without the path of the external API.
    pub url: String,
    /// The bearer token.
    pub token: Token,
    /// PEM bundle of the authorities the server's certificate may come from, in the place of the
    /// system's.
    pub ca_cert_file: Option<PathBuf>,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// A connection to one policy server. Clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    /// Without a slash at its end.
    api: String,
    token: Token,
}

impl Client {
    /// Prepares to connect; nothing is sent yet.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let Settings { url, token, ca_cert_file, timeout } = settings;
        let roots = match ca_cert_file {
            Some(path) => authorities(path)?,
            None => RootCerts::PlatformVerifier,
        };
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
            .root_certs(roots);
        let agent = Agent::config_builder()
            .tls_config(tls.build())
            .timeout_global(Some(*timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("network-policy/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { agent: agent.into(), api: api(url)?, token: token.clone() })
    }
}

fn api(url: &str) -> Result<String, SettingsError> {
    let refused = |reason: &'static str| SettingsError::Url { url: url.to_owned(), reason };
    let uri: Uri = url.parse().map_err(|_| refused("it is no address"))?;
    if !uri.scheme().is_some_and(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme)) {
        return Err(refused("it does not begin with http:// or https://"));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        // Not even shown: what stands there is a password.
        return Err(SettingsError::UrlWithPassword);
    }
    if uri.query().is_some() {
        return Err(refused("it has a query"));
    }
    let base = url.trim_end_matches('/');
    Ok(if base.ends_with(API) { base.to_owned() } else { format!("{base}{API}") })
}

fn authorities(path: &PathBuf) -> Result<RootCerts, SettingsError> {
    let pem = fs::read(path)
        .map_err(|source| SettingsError::ReadAuthority { path: path.clone(), source })?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(source) => {
                let (path, source) = (path.clone(), Box::new(source));
                return Err(SettingsError::Authority { path, source });
            }
        }
    }
    if found.is_empty() { Err(SettingsError::NoAuthority(path.clone())) } else { Ok(found.into()) }
}

#[cfg(test)]
mod tests;
