//! The program Garden runs for everything it wants done to a container's network (spec/cell.md §A):
//! one short process each, request on standard input, answer on standard output, complaint on
//! standard error.
//!
//! ```text
//! command, config    what we were told
//! wire, egress       what Garden says, and what it means
//! verb/              up, down, net-in, net-out: start reading at verb/up.rs
//! rules              what the firewall says about one container   (pure)
//! surroundings       what the cell says where the configuration is silent
//! store_owner        to whom the container store belongs
//! proxy              what the container's own firewall says       (pure)
//! host               the cell the verbs act on: the real one, and a fake
//! ports, record      files of ours, under locks; undo: taking back half an `up`
//! others             the containers a call is not about: moved to another firewall, or repaired
//! ```

mod agent;
mod command;
mod config;
mod egress;
mod handle;
mod host;
mod lock;
mod others;
mod ports;
mod proxy;
mod record;
mod rules;
mod store_owner;
mod surroundings;
mod undo;
mod verb;
mod wire;

use std::{
    error::Error,
    io::{self, Read, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use gocompat::json;
use serde::de::DeserializeOwned;

use command::{Action, Asked, Command, CommandError};
use config::{Config, DEFAULT_LOG_PREFIX};
use handle::Handle;
use host::CellHost;
use lock::Lock;
use record::Records;

/// Longer than all that the process working on the same container may wait for, taken together.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let mut prefix = DEFAULT_LOG_PREFIX.to_owned();
    let complaint = match run(&mut prefix).and_then(|answer| Ok(print(&answer)?)) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(error) => error_chain(error.as_ref()),
    };
    // If nobody listens, the exit code must do.
    let _ = writeln!(io::stderr(), "{prefix}: {complaint}");
    ExitCode::FAILURE
}

/// The answer, which is empty for most verbs. `prefix` becomes what the configuration says.
fn run(prefix: &mut String) -> Result<String> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word] = &words[..]
        && matches!(word.as_str(), "--version" | "-version")
    {
        return Ok(format!("external-networker {}\n", env!("CARGO_PKG_VERSION")));
    }
    let command = match Command::parse(words) {
        Err(CommandError::Help) => return Ok(command::USAGE.to_owned()),
        command => command?,
    };
    let mut config = Config::load(&command.config_file)?;
    prefix.clone_from(&config.log_prefix);
    log_to_stderr(prefix);
    for stray in &config.strays {
        tracing::warn!("{}: {stray}", command.config_file.display());
    }
    let (action, handle) = match command.asked()? {
        Asked::Action(action, handle) => (action, handle),
        Asked::Repair(handle) => {
            let handle = handle.as_deref().map(Handle::parse).transpose()?;
            config.look_around().context("looking at this cell")?;
            others::take_along(&config);
            others::repair(&config, handle.as_ref())?;
            return Ok(String::new());
        }
        Asked::RestoreStore => return others::restore_store(&config),
    };
    let handle = match Handle::parse(&handle) {
        // What never could come up is down.
        Err(_) if action == Action::Down => return Ok(String::new()),
        handle => handle?,
    };
    if action != Action::Down {
        config.look_around().context("looking at this cell")?;
    }
    let answer = act(&config, action, &handle)?;
    if action != Action::Down || config.look_around().is_ok() {
        others::take_along(&config);
    }
    Ok(answer)
}

fn act(config: &Config, action: Action, handle: &Handle) -> Result<String> {
    let host = CellHost::new(config);
    match action {
        Action::Up => {
            let request = request()?;
            let reply =
                alone(config, handle, PATIENCE, || verb::up(&host, config, handle, request))??;
            Ok(json::to_string(&reply))
        }
        Action::Down => {
            alone(config, handle, PATIENCE, || verb::down(&host, handle))??;
            Ok(String::new())
        }
        Action::NetIn => {
            let request = request()?;
            let reply =
                alone(config, handle, PATIENCE, || verb::net_in(&host, config, handle, &request))??;
            Ok(json::to_string(&reply))
        }
        Action::NetOut => {
            let request = request()?;
            alone(config, handle, PATIENCE, || verb::net_out(&host, config, handle, request))??;
            Ok(String::new())
        }
        Action::BulkNetOut => {
            let request = request()?;
            alone(config, handle, PATIENCE, || {
                verb::bulk_net_out(&host, config, handle, request)
            })??;
            Ok(String::new())
        }
    }
}

/// Does `work` while nobody else works on the container. The lock's file goes afterwards, so that
/// nothing is left of containers that are gone.
fn alone<T>(
    config: &Config,
    handle: &Handle,
    patience: Duration,
    work: impl FnOnce() -> T,
) -> Result<T> {
    let lock_file = Records::beside(&config.ports.path).lock_file(handle);
    let held = Lock::take(&lock_file, patience)
        .with_context(|| format!("waiting for another action on container {handle}"))?;
    let result = work();
    // One that stays is in nobody's way.
    let _ = held.remove();
    Ok(result)
}

/// The first JSON value on standard input.
fn request<T: DeserializeOwned>() -> Result<T> {
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes).context("reading standard input")?;
    json::from_slice_prefix(&bytes).context("parsing standard input")
}

fn print(answer: &str) -> io::Result<()> {
    io::stdout().write_all(answer.as_bytes())
}

/// Standard output belongs to the answer, and Garden logs what is on standard error: only what is
/// worth an operator's attention goes there.
fn log_to_stderr(prefix: &str) {
    let format = tracing_subscriber::fmt::format().without_time().with_target(false).compact();
    let prefix = prefix.to_owned();
    let writer = move || {
        let mut stderr = io::stderr();
        let _ = write!(stderr, "{prefix}: ");
        stderr
    };
    tracing_subscriber::fmt()
        .event_format(format)
        .with_ansi(false)
        .with_max_level(tracing::Level::WARN)
        .with_writer(writer)
        .init();
}

/// An error with all its causes, in one line.
fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Some libraries repeat their cause in their own text.
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
