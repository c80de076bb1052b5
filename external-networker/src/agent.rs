//! Asking the policy agent to put policies and security groups in place now (spec/cell.md §D.8).

use std::time::Duration;

use thiserror::Error;

use crate::handle::Handle;

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
    #[error("asg sync returned {status} with message: {message}")]
    GroupsRefused { status: u16, message: String },
}

/// Returns once the kernel holds the policies of every container in the store, or, with what the agent says of
/// it, once those are shut that nobody tells of.
pub(crate) fn force_poll(address: &str, limit: Duration) -> Result<(), AgentError> {
    match ask(address, "/force-policy-poll-cycle", limit)? {
        (200..=299, word) if word.is_empty() => Ok(()),
        (200..=299, word) => {
            tracing::warn!("The policy agent says of containers of this cell: {word}");
            Ok(())
        }
        (status, message) => Err(AgentError::Refused { status, message }),
    }
}

/// Returns once the kernel holds the security groups of a container; or at once, if the agent leaves
/// them to us (405), or knows nothing of such things (404).
pub(crate) fn force_groups(
    address: &str,
    handle: &Handle,
    limit: Duration,
) -> Result<(), AgentError> {
    // A handle is made of letters, digits, `_`, `.` and `-`.
    let path = format!("/force-asgs-for-container?container={handle}");
    match ask(address, &path, limit)? {
        (200..=299 | 404 | 405, _) => Ok(()),
        (status, message) => Err(AgentError::GroupsRefused { status, message }),
    }
}

/// Whether the agent keeps security groups. An agent that does asks for a container's name.
pub(crate) fn governs(address: &str, limit: Duration) -> Result<bool, AgentError> {
    let (status, _) = ask(address, "/force-asgs-for-container", limit)?;
    Ok(!matches!(status, 404 | 405))
}

/// The status and the text of an answer.
fn ask(address: &str, path: &str, limit: Duration) -> Result<(u16, String), AgentError> {
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
    let mut response = agent.get(format!("http://{address}{path}")).call().map_err(unreachable)?;
    let body = response.body_mut().with_config().limit(LONGEST_MESSAGE).read_to_string();
    let message = body.unwrap_or_else(|_| "(unreadable)".to_owned());
    Ok((response.status().as_u16(), message.trim().to_owned()))
}
