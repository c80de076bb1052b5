//! `policy-agent explain`: asks the agent that runs on this cell.

use std::{net::SocketAddr, time::Duration};

use serde::de::DeserializeOwned;
use thiserror::Error;
use ureq::{Body, http::Response};

use crate::{
    explain::{Explanation, Flow, InvalidFlow},
    shadow::{Kind, Report},
};

/// As long as it may take to read 50,000 rules back, and some more.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no explanation.
#[derive(Debug, Error)]
pub enum AskError {
    /// The words do not name a packet.
    #[error("{0}")]
    Words(String),
    /// Nobody answers, most likely.
    #[error("asking the agent at {address}; is it running?")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The agent does not know, and says why.
    #[error("the agent cannot tell: {0}")]
    Refused(String),
    /// Another version of the agent, most likely.
    #[error("the agent's answer is unreadable")]
    Unreadable(#[source] serde_json::Error),
}

impl From<InvalidFlow> for AskError {
    fn from(error: InvalidFlow) -> Self {
        Self::Words(error.to_string())
    }
}

/// Asks the agent that listens on `address` what becomes of a packet.
pub fn explain(
    address: SocketAddr,
    source: &str,
    destination: &str,
    port: &str,
) -> Result<Explanation, AskError> {
    // Mistakes are told even while no agent runs.
    Flow::parse(source, destination, port)?;
    let request = caller()
        .get(format!("http://{address}/explain"))
        .query("source", source)
        .query("destination", destination)
        .query("port", port);
    told(address, request.call())
}

/// Has the agent that listens on `address` enforce what was only watched: `kind`, or all of it. Returns
/// what that is, once the kernel does.
pub fn promote(address: SocketAddr, kind: Option<Kind>) -> Result<Report, AskError> {
    let mut request = caller().post(format!("http://{address}/promote"));
    if let Some(kind) = kind {
        request = request.query("what", kind.as_str());
    }
    told(address, request.send_empty())
}

fn caller() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .new_agent()
}

fn told<T: DeserializeOwned>(
    address: SocketAddr,
    response: Result<Response<Body>, ureq::Error>,
) -> Result<T, AskError> {
    let unreachable = |source| AskError::Unreachable { address, source: Box::new(source) };
    let mut response = response.map_err(unreachable)?;
    let text = response.body_mut().read_to_string().map_err(unreachable)?;
    if !response.status().is_success() {
        return Err(AskError::Refused(text));
    }
    serde_json::from_str(&text).map_err(AskError::Unreadable)
}
