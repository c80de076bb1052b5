//! The internal API, as cells speak it: mutual TLS, and polls that the server holds until something
//! changes (design §2.3, spec/policy-server.md §5, spec/cell.md §E.2).
//!
//! A [`Client`] retries nothing. Whom to ask next, and when, is what a [`Follower`] decides.

mod error;
mod exchange;
pub mod follow;
mod leases;
mod policies;
mod receipt;
mod tags;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Certificate, Identity, Url, header::HeaderValue, redirect, tls};

pub use error::{ClientError, Nonsense, SettingsError, UnusableChanges};
pub use follow::{Follower, News};
pub use leases::Leases;
pub use policies::{Answer, Question, Told};
pub use receipt::{Backend, ReceiptWords};

/// How often an idle HTTP/2 connection is asked whether anybody is still there. A held poll is
/// otherwise silent for most of a minute, and so is a dead server.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Where the server is and how to prove who we are.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `https://host:port`, with or without a path before the API's own.
    pub url: String,
    /// PEM bundle of the authorities the server's certificate may come from; no others are trusted.
    pub ca_cert_file: PathBuf,
    /// Our certificate, PEM.
    pub client_cert_file: PathBuf,
    /// Its key, PEM.
    pub client_key_file: PathBuf,
    /// How long an answer may take, on top of the time the server was asked to hold it.
    pub timeout: Duration,
    /// What receipts are kept under at the server: the cell's name. `None` sends no receipts.
    pub cell: Option<String>,
}

/// A connection pool to one policy server. Clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    timeout: Duration,
    cell: Option<HeaderValue>,
}

impl Client {
    /// Reads the certificates and prepares to connect; nothing is sent yet. After certificates have
    /// been rotated, make a new client.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let Settings { url, ca_cert_file, client_cert_file, client_key_file, timeout, cell } =
            settings;
        let base = base_url(url)?;
        let http = reqwest::Client::builder()
            .tls_certs_only(authorities(ca_cert_file)?)
            .identity(identity(client_cert_file, client_key_file)?)
            .tls_version_min(tls::Version::TLS_1_2)
            .https_only(true)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(*timeout)
            .http2_keep_alive_interval(HEARTBEAT)
            .http2_keep_alive_timeout(*timeout)
            .tcp_keepalive(HEARTBEAT)
            .build()
            .map_err(SettingsError::Client)?;
        let cell = cell.as_deref().map(header_of_cell).transpose()?;
        Ok(Self { http, base, timeout: *timeout, cell })
    }

    /// The address of an endpoint; `path` begins with a slash.
    fn endpoint(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url
    }
}

fn base_url(text: &str) -> Result<Url, SettingsError> {
    let refused = |reason: String| SettingsError::Url { url: text.to_owned(), reason };
    let url = Url::parse(text).map_err(|error| refused(error.to_string()))?;
    match (url.scheme(), url.host(), url.query(), url.fragment()) {
        ("https", Some(_), None, None) => Ok(url),
        _ => Err(refused("expected https://host:port".to_owned())),
    }
}

fn authorities(path: &Path) -> Result<Vec<Certificate>, SettingsError> {
    let what = "certificate authorities";
    let found = Certificate::from_pem_bundle(&read(what, path)?)
        .map_err(|source| SettingsError::Pem { what, path: path.to_owned(), source })?;
    // Without any, every server would be refused, with an error that leads elsewhere.
    if found.is_empty() { Err(SettingsError::NoAuthority(path.to_owned())) } else { Ok(found) }
}

fn identity(certificate: &Path, key: &Path) -> Result<Identity, SettingsError> {
    let mut pem = read("the client certificate", certificate)?;
    pem.push(b'\n');
    pem.extend(read("the client key", key)?);
    let what = "the client certificate and its key";
    Identity::from_pem(&pem).map_err(|source| SettingsError::Pem {
        what,
        path: certificate.to_owned(),
        source,
    })
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, SettingsError> {
    fs::read(path).map_err(|source| SettingsError::Read { what, path: path.to_owned(), source })
}

fn header_of_cell(cell: &str) -> Result<HeaderValue, SettingsError> {
    match HeaderValue::from_str(cell) {
        Ok(value) if !value.is_empty() && value.to_str().is_ok() => Ok(value),
        _ => Err(SettingsError::Cell(cell.to_owned())),
    }
}

#[cfg(test)]
mod tests;
