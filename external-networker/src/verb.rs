//! What Garden can ask for, one file each. Going up checks everything, stops at the first failure and
//! takes back what it did; going down carries on whatever happens.

mod down;
mod move_over;
mod net_in;
mod net_out;
mod repair;
mod up;

use std::net::Ipv4Addr;

use netfilter::egress::Workload;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::{
    config::Config,
    egress::{self, Families, InvalidEgress},
    handle::Handle,
    host::{Host, HostError, Wanted},
    record::{Live, Record},
    rules::{self, Facts, Governed},
};

pub(crate) use down::down;
pub(crate) use move_over::move_over;
pub(crate) use net_in::net_in;
pub(crate) use net_out::{bulk_net_out, net_out};
pub(crate) use repair::{Mended, RepairError, repair};
pub(crate) use up::up;

/// What a change to a container that should be up can run into.
#[derive(Debug, Error)]
pub(crate) enum ChangeError {
    #[error("container {0} is not up")]
    NotUp(Handle),
    #[error("container {handle} has address {ip}, not {asked:?}")]
    OtherAddress { handle: Handle, ip: Ipv4Addr, asked: String },
    #[error("the rules remembered of container {handle}")]
    Remembered {
        handle: Handle,
        #[source]
        source: InvalidEgress,
    },
    #[error(transparent)]
    Host(#[from] HostError),
}

/// A container that is up, and what is known of it.
fn live(host: &dyn Host, handle: &Handle, asked_ip: &str) -> Result<(Record, Live), ChangeError> {
    let record = host.record(handle)?;
    let not_up = || ChangeError::NotUp(handle.clone());
    let (record, live) =
        record.and_then(|record| Some((record.clone(), record.live?))).ok_or_else(not_up)?;
    if !asked_ip.is_empty() && asked_ip.parse() != Ok(live.ip) {
        let (handle, asked) = (handle.clone(), asked_ip.to_owned());
        return Err(ChangeError::OtherAddress { handle, ip: live.ip, asked });
    }
    Ok((record, live))
}

/// Remembers `after` and makes the firewall agree; if the firewall refuses, `before` is remembered
/// again. In this order, because a rule that is remembered and missing is put in by the next change,
/// while one that is there and forgotten would be lost by it.
fn change(
    host: &dyn Host,
    config: &Config,
    before: &Record,
    after: &Record,
) -> Result<(), ChangeError> {
    let handle = &before.handle;
    let Some(live) = &after.live else { return Err(ChangeError::NotUp(handle.clone())) };
    let facts = facts(handle, live)?;
    host.save(after)?;
    let mut is_lost = false;
    let settled = host.agree(&mut |observed| {
        let mut facts = facts.clone();
        // The policy agent may have put its jump there just now.
        facts.governed = rules::governed(handle, observed);
        is_lost = rules::is_lost(&facts, observed);
        if is_lost {
            facts.egress.clear();
        }
        vec![Wanted { rules: rules::ruleset(&config.cell, &facts), scope: handle.scope() }]
    });
    if let Err(error) = settled {
        host.save(before)?;
        return Err(error.into());
    }
    if is_lost {
        // Whether the agent has a say in what it may send is asked there.
        let mended = repair(host, config, std::slice::from_ref(handle));
        if let Some(trouble) = mended.into_values().find_map(|mended| mended.trouble) {
            let trouble = crate::error_chain(&trouble);
            tracing::warn!("The rules of container {handle} were gone: {trouble}");
        }
    }
    Ok(())
}

/// What its record says of a container; whether the agent keeps its security groups is seen elsewhere.
fn facts(handle: &Handle, live: &Live) -> Result<Facts, ChangeError> {
    // What was understood when it came is not forgotten when something else is configured.
    let egress = egress::read(&live.egress, Families::Both)
        .map_err(|source| ChangeError::Remembered { handle: handle.clone(), source })?;
    let Live { ip, second, links, mapped, .. } = live.clone();
    let workload = workload(&live.metadata);
    let (handle, governed) = (handle.clone(), Governed::No);
    Ok(Facts { handle, ip, second, links, mapped, workload, egress, governed })
}

/// What runs in a container, as its metadata says it.
fn workload(metadata: &Map<String, Value>) -> Workload {
    Workload::called(metadata.get("container_workload").and_then(Value::as_str))
}

#[cfg(test)]
mod tests;
