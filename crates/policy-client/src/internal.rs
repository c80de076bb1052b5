//! The internal API, as cells speak it: mutual TLS, and polls that the server holds until something
//! changes (design §2.3, spec/policy-server.md §5, spec/cell.md §E.2).
//!
//! A [`Client`] asks each address once, and repeats nothing. When to ask again, and whom, is what a
//! [`Follower`] decides.

mod advice;
mod clock;
mod door;
mod error;
mod exchange;
pub mod follow;
mod leases;
mod policies;
mod receipt;
mod security_groups;
mod several;
mod tags;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use reqwest::{Url, header::HeaderValue};
use uuid::Uuid;

use door::Door;
use several::Addresses;

pub use error::{ClientError, Nonsense, SettingsError, UnusableChanges};
pub use follow::{Follower, News};
pub use leases::Leases;
pub use policies::{Answer, Question, Told};
pub use receipt::{Backend, ReceiptWords};
pub use security_groups::{GroupsAnswer, GroupsQuestion, GroupsTold};

/// Where the server is and how to prove who we are.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `https://host:port`, with or without a path before the API's own; of each server of the one
    /// database. One at least.
    pub urls: Vec<String>,
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

/// A connection pool to the policy server, at whichever of its addresses it answers. Clones share it.
///
/// Certificates are looked at before each request, so that renewed ones are used without a restart.
#[derive(Debug, Clone)]
pub struct Client {
    door: Arc<Door>,
    addresses: Addresses,
    timeout: Duration,
    cell: Option<HeaderValue>,
    /// A name made with the client, by which the server tells apart two programs that say that they are one
    /// cell.
    agent: Uuid,
    /// How many questions it has asked that were receipts.
    asked: Arc<AtomicU64>,
}

impl Client {
    /// Reads the certificates and prepares to connect; nothing is sent yet.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let bases = base_urls(settings)?;
        Ok(Self {
            door: Arc::new(Door::of(settings)?),
            addresses: Addresses::any_of(bases),
            timeout: settings.timeout,
            cell: settings.cell.as_deref().map(header_of_cell).transpose()?,
            agent: Uuid::new_v4(),
            asked: Arc::default(),
        })
    }

    /// One client for each address, for a [`Follower`], which goes from one to the other by itself.
    /// They share a pool.
    pub fn each(settings: &Settings) -> Result<Vec<Self>, SettingsError> {
        let all = Self::new(settings)?;
        let at = |base| Self { addresses: Addresses::any_of(vec![base]), ..all.clone() };
        Ok(base_urls(settings)?.into_iter().map(at).collect())
    }
}

fn base_urls(settings: &Settings) -> Result<Vec<Url>, SettingsError> {
    if settings.urls.is_empty() {
        return Err(SettingsError::NoUrl);
    }
    settings.urls.iter().map(|url| base_url(url)).collect()
}

fn base_url(text: &str) -> Result<Url, SettingsError> {
    let refused = |reason: String| SettingsError::Url { url: text.to_owned(), reason };
    let url = Url::parse(text).map_err(|error| refused(error.to_string()))?;
    match (url.scheme(), url.host(), url.query(), url.fragment()) {
        ("https", Some(_), None, None) => Ok(url),
        _ => Err(refused("expected https://host:port".to_owned())),
    }
}

fn header_of_cell(cell: &str) -> Result<HeaderValue, SettingsError> {
    match HeaderValue::from_str(cell) {
        Ok(value) if !value.is_empty() && value.to_str().is_ok() => Ok(value),
        _ => Err(SettingsError::Cell(cell.to_owned())),
    }
}

#[cfg(test)]
mod tests;
