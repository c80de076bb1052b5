//! Asking the policy agent to put policies in place now (spec/cell.md §D.8).

use std::time::Duration;

use thiserror::Error;

/// As much of a refusal as is worth repeating.
const LONGEST_MESSAGE: u64 = 64 * 1024;

/// Why the agent has not put policies in place.
#[derive(Debug, Error)]
pub(crate) enum AgentError {
    #[error("asking the policy agent at {address} to enforce policies now; is it running?")]
    Unreachable {
        address: String,
        #[source]
        source: Box<ureq::Error>,
    },
    #[error("vpa response code: {status} with message: {message}")]
    Refused { status: u16, message: String },
}

/// Returns once the kernel holds the policies of every container in the store.
pub(crate) fn force_poll(address: &str, limit: Duration) -> Result<(), AgentError> {
    let unreachable = |source: ureq::Error| AgentError::Unreachable {
        address: address.to_owned(),
        source: Box::new(source),
    };
    // The agent is on this machine: a proxy in the environment is meant for something else.
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(limit))
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .new_agent();
    let url = format!("http://{address}/force-policy-poll-cycle");
    let mut response = agent.get(&url).call().map_err(unreachable)?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let body = response.body_mut().with_config().limit(LONGEST_MESSAGE).read_to_string();
    let message = body.unwrap_or_else(|_| "(unreadable)".to_owned());
    Err(AgentError::Refused { status: status.as_u16(), message: message.trim().to_owned() })
}
