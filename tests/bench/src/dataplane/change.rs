//! One policy more, and one less, among all that a cell has.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::{
    agent::Agent,
    flow::{is_let_in, median, serving},
    shape::{SERVER, Shape},
};
use crate::{process::Process, subject::Subject};

/// The ports policies are made for; each only once, so that none is remembered.
const FIRST_PORT: u16 = 9000;

/// Between two attempts to get in.
const PAUSE: Duration = Duration::from_micros(500);

/// A policy that is not in force by then is not coming.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a change costs.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Change {
    pub backend: &'static str,
    pub shape: String,
    pub policies: usize,
    pub changes: usize,
    /// From the arrival of the server's answer at the agent until the kernel holds one policy more: by the
    /// agent's own account, which the receipt waits for.
    pub added_ms: f64,
    /// The same of one policy less, whose connections are cut by then.
    pub removed_ms: f64,
    pub slowest_ms: f64,
    /// From the operator's request until the first packet is let in.
    pub request_to_packet_ms: f64,
    /// Of the agent and the programs it runs, for each change.
    pub agent_cpu_ms: f64,
}

/// Adds and deletes `count` policies, one at a time.
pub(super) async fn measure(
    agent: &Agent,
    subject: &Subject,
    shape: Shape,
    count: u16,
) -> Result<Change> {
    let mut connection = subject.external.connect().await?;
    let [mut added, mut removed, mut to_packet] = [Vec::new(), Vec::new(), Vec::new()];
    let process = agent.process()?;
    let before = process.cpu_with_children()?;
    for port in FIRST_PORT..FIRST_PORT + count {
        for (path, wanted) in [("", true), ("/delete", false)] {
            let path = format!("/networking/v1/external/policies{path}");
            let call = subject.external.post(&path, shape.change(port))?;
            let to = SocketAddr::from((SERVER, port));
            let began = Instant::now();
            let answer = connection.whole(call).await?;
            let version = answer.headers().get("netman-revision");
            let version = version.and_then(|value| value.to_str().ok());
            let version = version.context("the server names no revision")?.to_owned();
            if wanted {
                to_packet.push(milliseconds(let_in(agent, to, began)?));
            } else {
                // The agent times itself; whoever asks it meanwhile has it answer that instead.
                settle(process)?;
            }
            let took = milliseconds(agent.took(&version)?);
            if wanted { &mut added } else { &mut removed }.push(took);
            if !wanted {
                ensure!(!agent.cell.client.inside(|| is_let_in(to))?, "a deleted policy lets in");
            }
            settle(process)?;
        }
    }
    let cpu = process.cpu_with_children()? - before;
    let changes = added.len() + removed.len();
    let slowest_ms = added.iter().chain(&removed).copied().fold(0.0, f64::max);
    Ok(Change {
        backend: agent.backend,
        shape: shape.kind.to_string(),
        policies: shape.policies,
        changes,
        slowest_ms,
        agent_cpu_ms: milliseconds(cpu) / changes as f64,
        added_ms: median(added),
        removed_ms: median(removed),
        request_to_packet_ms: median(to_packet),
    })
}

/// Tries to get in until it succeeds; how long after `began` that was.
fn let_in(agent: &Agent, to: SocketAddr, began: Instant) -> Result<Duration> {
    serving(&agent.cell, to, || {
        agent.cell.client.inside(|| {
            while !is_let_in(to) {
                ensure!(began.elapsed() < PATIENCE, "nothing is let in to {to}");
                thread::sleep(PAUSE);
            }
            Ok(began.elapsed())
        })?
    })
}

/// Waits until the agent has done what it does after a change.
fn settle(process: Process) -> Result<()> {
    let mut before = process.cpu_with_children()?;
    for _ in 0..100 {
        thread::sleep(Duration::from_millis(50));
        let now = process.cpu_with_children()?;
        if now == before {
            return Ok(());
        }
        before = now;
    }
    Ok(())
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
