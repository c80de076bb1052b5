//! One request and its whole answer.

use std::time::Duration;

use gocompat::json;
use policy::{ParseVersionError, Version};
use reqwest::{
    Method, RequestBuilder, Response, StatusCode, Url,
    header::{CONTENT_TYPE, ETAG, HeaderMap, IF_NONE_MATCH},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{Client, ClientError, error::Nonsense};
use crate::refusal;

/// The most bytes of an answer that are read: some ten times the policies of the largest fleets.
const LONGEST: usize = 256 << 20;

/// `Prefer`, RFC 7240.
const PREFER: &str = "Prefer";

/// Who is asking; receipts are kept under this name (design §2.3).
const CELL: &str = "Netman-Cell";

/// A request, named for errors without its query, which lists every app of the cell.
pub(super) struct Exchange {
    request: RequestBuilder,
    name: String,
}

/// The answer to a question that says what is known already.
pub(super) enum Held {
    NotModified(Version),
    Fresh { body: Body, version: Option<Version> },
}

/// A successful answer, not understood yet.
pub(super) struct Body {
    bytes: Vec<u8>,
    name: String,
}

impl Client {
    pub(super) fn get(&self, url: Url) -> Exchange {
        self.exchange(Method::GET, url, self.timeout)
    }

    pub(super) fn put<T: Serialize>(&self, url: Url, body: &T) -> Exchange {
        let exchange = self.exchange(Method::PUT, url, self.timeout);
        let request = exchange.request.header(CONTENT_TYPE, "application/json");
        Exchange { request: request.body(json::to_string(body)), ..exchange }
    }

    /// A question the server may hold for `wait` while what is asked for is still as `known`.
    pub(super) async fn ask(
        &self,
        url: Url,
        known: Option<&Version>,
        wait: Option<Duration>,
        cell: bool,
    ) -> Result<Held, ClientError> {
        let Exchange { mut request, name } = self.get(url);
        if let Some(known) = known {
            request = request.header(IF_NONE_MATCH, known.to_etag());
        }
        if let Some(wait) = wait {
            // The wait is whole seconds on the wire, and the server's, so ours begins after it.
            let seconds = wait.as_secs().max(1);
            request = request.header(PREFER, format!("wait={seconds}"));
            request = request.timeout(Duration::from_secs(seconds) + self.timeout);
        }
        if cell && let Some(cell) = &self.cell {
            request = request.header(CELL, cell);
        }
        Exchange { request, name }.held(known).await
    }

    fn exchange(&self, method: Method, url: Url, timeout: Duration) -> Exchange {
        let mut shown = url.clone();
        shown.set_query(None);
        let name = format!("{method} {shown}");
        Exchange { request: self.http.request(method, url).timeout(timeout), name }
    }
}

impl Exchange {
    /// Sends, and reads a success to its end.
    pub(super) async fn body(self) -> Result<Body, ClientError> {
        let Self { request, name } = self;
        let response = send(request, &name).await?;
        Body::of(response, name).await
    }

    async fn held(self, known: Option<&Version>) -> Result<Held, ClientError> {
        let Self { request, name } = self;
        let response = send(request, &name).await?;
        let version = match version(response.headers()) {
            Ok(version) => version,
            Err(error) => return Err(nonsense(name, error)),
        };
        if response.status() != StatusCode::NOT_MODIFIED {
            return Ok(Held::Fresh { body: Body::of(response, name).await?, version });
        }
        match known {
            Some(known) if version.as_ref().is_none_or(|version| version == known) => {
                Ok(Held::NotModified(known.clone()))
            }
            _ => Err(nonsense(name, Nonsense::NotOurs)),
        }
    }
}

impl Body {
    async fn of(mut response: Response, name: String) -> Result<Self, ClientError> {
        let status = response.status();
        let mut bytes = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if bytes.len() + chunk.len() > LONGEST => {
                    return Err(ClientError::TooLong { request: name, limit: LONGEST });
                }
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(source) => return Err(unreachable(source, &name)),
            }
        }
        if status.is_success() {
            return Ok(Self { bytes, name });
        }
        let (status, reason) = (status.as_u16(), refusal::text(&bytes));
        Err(ClientError::Refused { request: name, status, reason })
    }

    #[cfg(test)]
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), name: "GET nowhere".to_owned() }
    }

    /// Reads the JSON, then makes sense of it; neither by halves.
    pub(super) fn understand<Wire: DeserializeOwned, T, E: Into<Nonsense>>(
        self,
        understand: impl FnOnce(Wire) -> Result<T, E>,
    ) -> Result<T, ClientError> {
        let Self { bytes, name } = self;
        match json::from_slice(&bytes) {
            Ok(wire) => understand(wire).map_err(|error| nonsense(name, error)),
            Err(source) => Err(ClientError::Json { request: name, source }),
        }
    }
}

async fn send(request: RequestBuilder, name: &str) -> Result<Response, ClientError> {
    request.send().await.map_err(|source| unreachable(source, name))
}

fn unreachable(source: reqwest::Error, name: &str) -> ClientError {
    ClientError::Unreachable { request: name.to_owned(), source: source.without_url() }
}

fn nonsense(request: String, source: impl Into<Nonsense>) -> ClientError {
    ClientError::Nonsense { request, source: source.into() }
}

fn version(headers: &HeaderMap) -> Result<Option<Version>, ParseVersionError> {
    let Some(value) = headers.get(ETAG) else {
        return Ok(None);
    };
    Version::from_etag(&String::from_utf8_lossy(value.as_bytes())).map(Some)
}
