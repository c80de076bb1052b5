use std::{fmt, net::IpAddr};

use containers::Container;
use thiserror::Error;

use crate::{
    handle::Handle,
    host::{Host, HostError},
    record::Record,
};

/// Everything that could not be taken down; the rest is gone. Another `down` tries again.
#[derive(Debug, Default, Error)]
pub(crate) struct DownError(Vec<(&'static str, HostError)>);

/// Disconnects the container, whatever is left of it. Everything is found from the handle alone.
///
/// The order matters to whoever gets the address or a port next: by the time CNI frees the address,
/// its rules, its store entry, its policies and its connections are gone; ports are freed last, and
/// only when nothing leads from them any more (spec/cell.md §I.23, §I.24). What still runs in there sends
/// nothing from the first moment on.
pub(crate) fn down(host: &dyn Host, handle: &Handle) -> Result<(), DownError> {
    let mut errors = DownError::default();
    let record = errors.collect("marking it as going", retire(host, handle));
    if host.pinned(handle).is_some() {
        errors.collect("holding what it sends", host.hold(handle));
    }
    let listed = errors.collect("store delete", host.strike(handle));
    // What is not remembered was connected by the CNI wrapper, before our time, and has not been moved
    // when another firewall was configured.
    let scope = handle.scope();
    let cleared = match &record {
        Some(None) => host.clear_both(&scope),
        _ => host.clear(&scope),
    };
    let shut = errors.collect("removing its rules", cleared).is_some();
    let known = record.flatten().and_then(|record| {
        let ip = record.ip?;
        Some([Some(ip.into()), record.ipv6.map(IpAddr::from)])
    });
    if let (None, Some(Some(container))) = (&known, &listed) {
        errors.collect("removing its masquerade", host.clear_masquerade(container.ip));
    }
    if listed != Some(None) {
        host.hint_policies();
    }
    let of_store = |listed: Container| [Some(listed.ip.into()), listed.ipv6().map(IpAddr::from)];
    let addresses = known.or(listed.flatten().map(of_store));
    for ip in addresses.into_iter().flatten().flatten() {
        host.forget_connections(ip);
    }
    let detached = errors.collect("cni down", host.detach(handle)).is_some();
    if detached && host.pinned(handle).is_some() {
        // Nothing leads out of it any more.
        errors.collect("letting go of what it sends", host.release(handle));
    }
    errors.collect("unpinning its namespace", host.unpin(handle));
    if shut {
        errors.collect("releasing its ports", host.release_ports(handle));
    }
    if errors.0.is_empty() {
        errors.collect("forgetting it", host.forget(handle));
    }
    if errors.0.is_empty() { Ok(()) } else { Err(errors) }
}

/// From the first moment on, a repeated `up` must not take the container for one that is up. Returns
/// what is remembered of it.
fn retire(host: &dyn Host, handle: &Handle) -> Result<Option<Record>, HostError> {
    let Some(record) = host.record(handle)? else { return Ok(None) };
    let going = Record { live: None, ..record.clone() };
    if record.live.is_some() {
        host.save(&going)?;
    }
    Ok(Some(going))
}

impl DownError {
    /// The value, if there is one; else notes what went wrong, and doing what.
    fn collect<T>(&mut self, doing: &'static str, result: Result<T, HostError>) -> Option<T> {
        result.map_err(|error| self.0.push((doing, error))).ok()
    }
}

impl fmt::Display for DownError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (doing, error)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{doing}: {}", crate::error_chain(error))?;
        }
        Ok(())
    }
}
