use netfilter::{Action, Rule, Table};
use thiserror::Error;

use crate::{
    config::Config,
    handle::Handle,
    host::{Host, HostError},
    rules::{self, Governed},
    verb::{ChangeError, facts},
};

/// Why a container's rules stay where they are.
#[derive(Debug, Error)]
pub(crate) enum MoveError {
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("the policy agent has not moved the security groups of container {0} yet")]
    Ungoverned(Handle),
}

/// Moves the rules of a container from the firewall that was configured before to the one that is. The
/// new ones are complete before the old ones go, and until then both are asked: at no moment does
/// anything pass that should not.
///
/// Security groups are the policy agent's, and it puts them in front of a chain that is there. So what
/// leaves the overlay is left to the former firewall until it has.
pub(crate) fn move_over(
    host: &dyn Host,
    config: &Config,
    handle: &Handle,
) -> Result<(), MoveError> {
    let scope = handle.scope();
    if let Some(live) = host.record(handle)?.and_then(|record| record.live) {
        let (was_governed, governed) = (host.was_governed(handle)?, host.governed(handle)?);
        let mut facts = facts(handle, &live, governed)?;
        if was_governed != Governed::No && governed == Governed::No {
            let mut open = rules::ruleset(&config.cell, &facts);
            let pass = vec![Rule::new(Action::Accept)];
            open.chain(Table::Filter, handle.chains().netout, pass);
            host.settle(&open, &scope)?;
            host.await_groups(handle)?;
            facts.governed = host.governed(handle)?;
            if facts.governed == Governed::No {
                return Err(MoveError::Ungoverned(handle.clone()));
            }
        }
        host.settle(&rules::ruleset(&config.cell, &facts), &scope)?;
    }
    Ok(host.clear_former(&scope)?)
}
