//! `policy-agent explain`: asks the agent that runs on this cell.

use std::{net::SocketAddr, path::Path, thread::sleep, time::Duration};

use serde::de::DeserializeOwned;
use thiserror::Error;
use ureq::{Body, http::Response};

use crate::{
    explain::{Explanation, Flow, InvalidFlow},
    probe::{self, Attempt, Probe, ProbeError},
    shadow::{Kind, Promoted},
};

/// As long as it may take to read 50,000 rules back, and some more.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often, and how soon after one another, the agent is asked whether it heard of a denied packet.
const LOOKS: u32 = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

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
    /// Another program, or another version of the agent.
    #[error("what listens at {0} does not answer as a policy agent of this version does")]
    Stranger(SocketAddr, #[source] Option<serde_json::Error>),
    /// It was explained, but could not be tried.
    #[error("trying it out")]
    Probe(#[from] ProbeError),
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

/// Tries out what was explained, in the namespace at `container`; the words are those it was asked for
/// with. The agent that listens on `address` says whether rules of this cell denied it.
pub fn probe(
    address: SocketAddr,
    container: &Path,
    [source, destination, port]: [&str; 3],
    explanation: Explanation,
) -> Result<Explanation, AskError> {
    let flow = Flow::parse(source, destination, port)?;
    let from = explanation.source.ok_or(ProbeError::Address("source"))?;
    let to = explanation.destination.ok_or(ProbeError::Address("destination"))?;
    let (attempt, met) = probe::attempt(container, &flow, from, to)?;
    let denied = denied(address, &attempt, met)?;
    Ok(Explanation { probe: Some(Probe { attempt, met, denied }), ..explanation })
}

/// The kernel tells the agent of a packet beside the packet's way, so that may take a moment.
fn denied(
    address: SocketAddr,
    attempt: &Attempt,
    met: probe::Met,
) -> Result<Option<String>, AskError> {
    if met == probe::Met::Answer {
        return Ok(None);
    }
    for _ in 0..LOOKS {
        let request = caller()
            .get(format!("http://{address}/denied"))
            .query("protocol", attempt.protocol.as_str())
            .query("source", attempt.source.to_string())
            .query("destination", attempt.destination.to_string());
        if let Some(reason) = told(address, request.call())? {
            return Ok(Some(reason));
        }
        sleep(BETWEEN_LOOKS);
    }
    Ok(None)
}

/// Has the agent that listens on `address` enforce what was only watched: `kind`, or all of it. Returns
/// what that is, once the kernel does, and what is only watched all the same.
pub fn promote(address: SocketAddr, kind: Option<Kind>) -> Result<Promoted, AskError> {
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
        // An agent says why; a page is somebody else's.
        let is_a_page = text.is_empty() || text.trim_start().starts_with('<');
        return Err(match is_a_page {
            true => AskError::Stranger(address, None),
            false => AskError::Refused(text),
        });
    }
    serde_json::from_str(&text).map_err(|error| AskError::Stranger(address, Some(error)))
}
