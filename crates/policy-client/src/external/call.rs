//! One request and its whole answer.

use gocompat::json;
use policy::Version;
use serde::{Serialize, de::DeserializeOwned};
use ureq::{
    Body, RequestBuilder,
    http::{HeaderMap, Response},
};

use super::{Client, ClientError, error::Nonsense};
use crate::refusal;

/// The most bytes of an answer that are read.
const LONGEST: u64 = 256 << 20;

/// The version of a change, for waiting until cells enforce it (design §2.3).
const REVISION: &str = "Netman-Revision";

/// What the server calls the request in its own log (spec/policy-server.md §2.4).
const REQUEST_ID: &str = "X-Vcap-Request-Id";

/// A success, not understood yet.
pub(super) struct Answer {
    name: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Client {
    /// `path` begins with a slash; values of the query are comma-separated lists.
    pub(super) fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Answer, ClientError> {
        let url = format!("{}{path}", self.api);
        let request = self.authorized(self.agent.get(&url)).query_pairs(query.iter().cloned());
        self.sent(format!("GET {url}"), request.call())
    }

    pub(super) fn post<T: Serialize>(&self, path: &str, body: &T) -> Result<Answer, ClientError> {
        let url = format!("{}{path}", self.api);
        let request = self.authorized(self.agent.post(&url)).content_type("application/json");
        self.sent(format!("POST {url}"), request.send(json::to_string(body)))
    }

    fn authorized<T>(&self, request: RequestBuilder<T>) -> RequestBuilder<T> {
        request.header("Accept", "application/json").header("Authorization", self.token.header())
    }

    fn sent(
        &self,
        name: String,
        sent: Result<Response<Body>, ureq::Error>,
    ) -> Result<Answer, ClientError> {
        let unreachable =
            |source| ClientError::Unreachable { request: name.clone(), source: Box::new(source) };
        let (head, body) = sent.map_err(unreachable)?.into_parts();
        let body = body.into_with_config().limit(LONGEST).read_to_vec().map_err(unreachable)?;
        if head.status.is_success() {
            return Ok(Answer { name, headers: head.headers, body });
        }
        Err(ClientError::Refused {
            request: name,
            status: head.status.as_u16(),
            reason: refusal::text(&body),
            request_id: text(&head.headers, REQUEST_ID),
        })
    }
}

impl Answer {
    /// The version that holds the change; `None` from a server that knows no versions.
    pub(super) fn version(self) -> Result<Option<Version>, ClientError> {
        let Some(text) = text(&self.headers, REVISION) else {
            return Ok(None);
        };
        let version = text.parse().map_err(|error| self.nonsense(error))?;
        Ok(Some(version))
    }

    /// Reads the JSON, then makes sense of it; neither by halves.
    pub(super) fn understand<Wire: DeserializeOwned, T>(
        self,
        understand: impl FnOnce(Wire) -> Result<T, Nonsense>,
    ) -> Result<T, ClientError> {
        match json::from_slice(&self.body) {
            Ok(wire) => understand(wire).map_err(|error| self.nonsense(error)),
            Err(source) => Err(ClientError::Json { request: self.name, source }),
        }
    }

    fn nonsense(self, source: impl Into<Nonsense>) -> ClientError {
        ClientError::Nonsense { request: self.name, source: source.into() }
    }

    #[cfg(test)]
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let name = "GET nowhere".to_owned();
        Self { name, headers: HeaderMap::new(), body: bytes.to_vec() }
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}
