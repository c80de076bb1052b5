//! `policy-agent doctor`: what on this cell keeps policies from being enforced, or soon will.
//!
//! Looks, and tries things out in a network namespace of its own; changes nothing of the cell. It works
//! whether or not the agent runs. Deciding what a number means is apart from reading it, in the same
//! file.

mod agent;
mod cell;
mod certificate;
mod clock;
mod configuration;
mod features;
mod finding;
mod foreign_chains;
mod former;
mod groups;
mod limits;
pub(crate) mod lock;
mod networker;
mod offloads;
mod overlay;
mod second;
mod settings;
mod tags;

use tokio::runtime::Runtime;

use crate::{Config, backend};

pub use finding::{Finding, Report, Verdict};

/// Examines the cell the file `config` is for. Blocks, for some seconds if the server is away.
pub fn examine(config: &Config) -> Report {
    let mut findings = configuration::examine(config);
    let stored = cell::stored(config);
    let written = backend::as_found(config.backend);
    let block = config.subnet.read().ok().map(|subnet| subnet.block);
    findings.extend(cell::examine(config, &stored));
    findings.extend(networker::examine(config, written));
    findings.extend(features::examine(config.backend));
    findings.extend(overlay::examine(config));
    findings.extend(second::examine(config, &stored));
    findings.extend(settings::examine());
    findings.push(limits::neighbours());
    findings.push(limits::connections());
    findings.extend(lock::examine(config.iptables_lock_file.as_deref()));
    findings.push(former::examine(written, &stored));
    findings.extend(foreign_chains::examine(written, block));
    findings.push(tags::examine(config));
    findings.extend(certificate::examine(config));
    findings.push(match Runtime::new() {
        Ok(runtime) => runtime.block_on(clock::examine(config)),
        Err(error) => Finding::broken("clock", format!("no thread to ask on: {error}")),
    });
    findings.push(agent::examine(config));
    findings.extend(groups::examine(config));
    Report { findings }
}
