use netfilter::{Action, Rule, Table};
use thiserror::Error;

use crate::{
    config::Config,
    handle::Handle,
    host::{Host, HostError, Wanted},
    rules::{self, Facts, Governed},
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
    #[error("the policy agent has not moved yet")]
    AgentFirst,
}

/// Moves the rules of a container from the firewall that was configured before to the one that is. The
/// new ones are complete before the old ones go, and until then both are asked: at no moment does
/// anything pass that should not.
///
/// Policies are the policy agent's. What they allow would be cut where its chain does not stand, so it
/// moves first. Security groups are its, too, and it puts them in front of a chain that is there: what
/// leaves the overlay is left to the former firewall until it has. Where nothing stands, nothing is moved:
/// what somebody else has taken away is for [`super::repair()`] to bring back.
pub(crate) fn move_over(
    host: &dyn Host,
    config: &Config,
    handle: &Handle,
) -> Result<(), MoveError> {
    let scope = handle.scope();
    let former = host.former()?.unwrap_or_default();
    let live = host.read(handle)?.and_then(|record| record.live);
    let stands = former.rules(Table::Filter, handle.chains().netout.as_str()).is_some();
    if let Some(live) = live.filter(|_| stands) {
        let now = host.observe()?;
        if rules::has_agent(&former) && !rules::has_agent(&now) {
            return Err(MoveError::AgentFirst);
        }
        let mut facts = facts(handle, &live)?;
        if rules::is_governed(handle, &former) && !rules::is_governed(handle, &now) {
            agree(host, config, &facts, true)?;
            host.await_groups(handle)?;
            facts.governed = rules::governed(handle, &host.observe()?);
            if !facts.is_linked() {
                return Err(MoveError::Ungoverned(handle.clone()));
            }
        }
        agree(host, config, &facts, false)?;
    }
    Ok(host.clear_former(&scope)?)
}

/// Writes the rules of a container; `leave` says whether what leaves the overlay is left to the former
/// firewall.
fn agree(host: &dyn Host, config: &Config, facts: &Facts, leave: bool) -> Result<(), HostError> {
    host.agree(&mut |observed| {
        let governed = rules::governed(&facts.handle, observed);
        let mut rules = rules::ruleset(&config.cell, &Facts { governed, ..facts.clone() });
        if governed == Governed::No && leave {
            let pass = vec![Rule::new(Action::Accept)];
            rules.replace_chain(Table::Filter, facts.handle.chains().netout, pass);
        }
        vec![Wanted { rules, scope: facts.handle.scope() }]
    })?;
    Ok(())
}
