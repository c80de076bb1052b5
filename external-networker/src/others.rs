//! The containers of a cell, but for the one a call is about.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use gocompat::json;
use serde::Serialize;

use crate::{
    PATIENCE,
    config::Config,
    error_chain,
    handle::Handle,
    host::{CellHost, Host},
    lock::Lock,
    record::{Record, Records},
    verb::{self, Mended, RepairError},
};

/// How long to wait for whoever works on a container that is not the one this is about.
const A_MOMENT: Duration = Duration::from_secs(1);

/// How long to look whether anybody is at work on one.
const A_GLANCE: Duration = Duration::from_millis(1);

/// How long Garden's answer may be kept back while others are taken along.
const FOR_OTHERS: Duration = Duration::from_secs(5);

/// What is told of a container whose rules were put right, a line each.
#[derive(Debug, Serialize)]
struct Line<'m> {
    container: &'m str,
    /// Chains, ours and those that lead to them, and settings of the kernel.
    mended: Vec<&'m str>,
}

/// After another firewall was configured, whoever comes by takes all containers along. What fails is
/// tried again by the next; until then, both firewalls are asked.
pub(crate) fn take_along(config: &Config) {
    let host = CellHost::new(config);
    let left_behind = host.left_behind();
    if !left_behind.is_empty()
        && let Err(error) = host.somebody_is_left_behind()
    {
        let error = error_chain(&error);
        tracing::warn!("Containers stay in the firewall that was configured before: {error}");
        return;
    }
    let (began, mut all) = (Instant::now(), true);
    for handle in left_behind {
        // Garden waits for our answer; the next who comes by goes on.
        if began.elapsed() > FOR_OTHERS {
            return;
        }
        let work = || verb::move_over(&host, config, &handle);
        let moved = match crate::alone(config, &handle, A_MOMENT, work) {
            Ok(moved) => moved.map_err(anyhow::Error::from),
            Err(busy) => Err(busy),
        };
        if let Err(error) = moved {
            let error = error_chain(error.as_ref());
            tracing::warn!(
                "Container {handle} still has rules in the firewall that was configured before: {error}"
            );
            all = false;
        }
    }
    if all && let Err(error) = host.nobody_is_left_behind() {
        tracing::debug!("It is not remembered which firewall is written: {}", error_chain(&error));
    }
}

/// Puts the rules of one container right, or of all that are remembered, and says which. Those of which
/// that cannot be done are an error, once the others are done.
pub(crate) fn repair(config: &Config, handle: Option<&Handle>) -> Result<()> {
    let host = CellHost::new(config);
    let (handles, patience) = match handle {
        Some(handle) => (vec![handle.clone()], PATIENCE),
        None => (host.to_repair(), A_MOMENT),
    };
    // In one order, whoever does this; and nobody else waits for a second while holding a first.
    let (mut held, mut failed) = (BTreeMap::new(), 0_usize);
    for handle in &handles {
        match Lock::take(&Records::beside(&config.ports.path).lock_file(handle), patience) {
            Ok(lock) => _ = held.insert(handle.clone(), lock),
            Err(error) => {
                failed += 1;
                tracing::warn!("Container {handle} is worked on by another action: {error}");
            }
        }
    }
    let ours: Vec<_> = held.keys().cloned().collect();
    let mended = verb::repair(&host, config, &ours);
    for lock in held.into_values() {
        // One that stays is in nobody's way.
        let _ = lock.remove();
    }
    failed += tell(&mended, handle.is_some()).context("telling what was repaired")?;
    if handle.is_none() {
        tell_of_half_made(&host, config);
    }
    if failed > 0 {
        bail!("of {} containers, {failed} could not be repaired", handles.len());
    }
    Ok(())
}

/// Writes a container store that is lost or damaged anew from the containers' records; the answer names whom
/// it has then, and nobody if it was whole.
///
/// Meanwhile nobody works on any container: what one is about to remember, or to forget, would be wrong
/// for good in a store that is whole.
pub(crate) fn restore_store(config: &Config) -> Result<String> {
    let host = CellHost::new(config);
    let records = Records::beside(&config.ports.path);
    let lock = |handle: Handle| {
        let lock = Lock::take(&records.lock_file(&handle), A_MOMENT);
        lock.with_context(|| {
            format!("container {handle} is worked on by another action; try again")
        })
    };
    let held = host.remembered().into_iter().map(lock).collect::<Result<Vec<_>>>()?;
    let restored = host.restore_store();
    for lock in held {
        // One that stays is in nobody's way.
        let _ = lock.remove();
    }
    let restored = restored.context("restoring the container store")?;
    Ok(json::to_string(&serde_json::json!({"restored": restored})) + "\n")
}

/// Whoever was killed half-way has left these; they are held, so they need repair of nobody but who meant them.
fn tell_of_half_made(host: &CellHost<'_>, config: &Config) {
    for handle in host.remembered() {
        let begun = |record: Option<Record>| record.is_some_and(|record| record.live.is_none());
        let is_half_made = || host.pinned(&handle).is_some() && host.read(&handle).is_ok_and(begun);
        if !is_half_made() {
            continue;
        }
        // Unless somebody is at it, or has just been.
        let lock = Records::beside(&config.ports.path).lock_file(&handle);
        let Ok(lock) = Lock::take(&lock, A_GLANCE) else { continue };
        let still = is_half_made();
        let _ = lock.remove();
        if still {
            tracing::warn!(
                "Container {handle} was left half-made, or half taken down: nothing gets out of it; take it \
                 down, or up again"
            );
        }
    }
}

/// Says what was done, and how many are in trouble. Of one that has gone meanwhile, nothing is `expected`.
fn tell(mended: &BTreeMap<Handle, Mended>, expected: bool) -> io::Result<usize> {
    let (mut out, mut failed) = (io::stdout().lock(), 0);
    for (handle, Mended { what, trouble }) in mended {
        if !what.is_empty() {
            let mended = what.iter().map(String::as_str).collect();
            let line = Line { container: handle.as_str(), mended };
            writeln!(out, "{}", json::to_string(&line))?;
        }
        match trouble {
            None => {}
            Some(RepairError::Unknown) if !expected => {}
            Some(trouble) => {
                failed += 1;
                let trouble = error_chain(trouble);
                tracing::warn!("Container {handle} could not be repaired: {trouble}");
            }
        }
    }
    Ok(failed)
}

impl CellHost<'_> {
    /// Those that are up, as far as is remembered. Whoever comes or goes is worked on, and has written, or
    /// is about to, what it needs.
    fn to_repair(&self) -> Vec<Handle> {
        let mut handles = self.remembered();
        handles.retain(|handle| match self.read(handle) {
            Ok(record) => record.is_some_and(|record| record.live.is_some()),
            Err(_) => true,
        });
        handles
    }
}
