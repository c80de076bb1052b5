//! Requests to the platform's other services. They end: in an answer, or soon in an error.

use std::time::Duration;

use gocompat::json::JsonError;
use reqwest::{Client, ClientBuilder, RequestBuilder, StatusCode, redirect::Policy};
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::time::timeout;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(2);

/// How long a connection is kept for the next request. Shorter than servers usually keep theirs, so
/// that a request seldom meets one that is just being closed.
const KEEP: Duration = Duration::from_secs(30);

/// The client that `builder`, which knows about TLS, makes for talking to the platform: without a
/// proxy from the environment (spec/policy-server.md §16), and following no redirects, since what
/// we send with a request is meant for nobody else.
pub fn client(builder: ClientBuilder) -> Result<Client, reqwest::Error> {
    builder
        .no_proxy()
        .redirect(Policy::none())
        .connect_timeout(CONNECT)
        .pool_idle_timeout(KEEP)
        .user_agent(concat!("policy-server/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// A request without a useful answer.
#[derive(Debug, Error)]
pub enum CallError {
    /// No connection, or it broke.
    #[error("no answer came")]
    Broken(#[source] reqwest::Error),
    /// The time was up.
    #[error("no answer came within {} ms", .0.as_millis())]
    TooSlow(Duration),
    /// Nothing we would keep in memory.
    #[error("the answer was longer than {0} bytes")]
    TooLong(usize),
    /// An answer, but not 200.
    #[error("the answer was {0}")]
    Status(StatusCode),
    /// A 200 whose body is not the JSON it should be.
    #[error("the answer was unreadable")]
    Unreadable(#[source] JsonError),
}

impl CallError {
    /// Whether asking once more may help.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Broken(error) => !error.is_builder(),
            Self::Status(status) => matches!(status.as_u16(), 502..=504),
            Self::TooSlow(_) | Self::TooLong(_) | Self::Unreadable(_) => false,
        }
    }
}

/// Sends `request` and reads the JSON of its answer, which must be a 200 of at most `longest` bytes.
pub(crate) async fn json<T: DeserializeOwned>(
    request: RequestBuilder,
    longest: usize,
) -> Result<T, CallError> {
    gocompat::json::from_slice(&body(request, longest).await?).map_err(CallError::Unreadable)
}

/// Sends `request` and reads its answer, which must be a 200 of at most `longest` bytes.
pub(crate) async fn body(request: RequestBuilder, longest: usize) -> Result<Vec<u8>, CallError> {
    let broken = |error: reqwest::Error| CallError::Broken(error.without_url());
    let mut response = request.send().await.map_err(broken)?;
    let mut body = Vec::new();
    // Whatever the status: a connection whose answer was not read cannot be used again.
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if chunk.len() > longest - body.len() {
            return Err(CallError::TooLong(longest));
        }
        body.extend_from_slice(&chunk);
    }
    if response.status() != StatusCode::OK {
        return Err(CallError::Status(response.status()));
    }
    Ok(body)
}

/// `call`, given up after `patience`.
pub(crate) async fn within<T>(
    patience: Duration,
    call: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    timeout(patience, call).await.unwrap_or(Err(CallError::TooSlow(patience)))
}
