use thiserror::Error;

use crate::{
    config::Config,
    egress::{self, InvalidEgress},
    handle::Handle,
    host::Host,
    verb::{ChangeError, change, live},
    wire,
};

/// Why a container may not send where it should.
#[derive(Debug, Error)]
pub(crate) enum NetOutError {
    #[error(transparent)]
    Invalid(#[from] InvalidEgress),
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// Lets a container that is up send somewhere more.
pub(crate) fn net_out(
    host: &dyn Host,
    config: &Config,
    handle: &Handle,
    request: wire::NetOutRequest,
) -> Result<(), NetOutError> {
    let wire::NetOutRequest { container_ip, netout_rule } = request;
    let netout_rules = vec![netout_rule];
    bulk_net_out(host, config, handle, wire::BulkNetOutRequest { container_ip, netout_rules })
}

/// The same for many rules: all of them, or none. A rule it has already changes nothing.
pub(crate) fn bulk_net_out(
    host: &dyn Host,
    config: &Config,
    handle: &Handle,
    request: wire::BulkNetOutRequest,
) -> Result<(), NetOutError> {
    let wire::BulkNetOutRequest { container_ip, netout_rules } = request;
    egress::read(&netout_rules, config.families())?;
    let (before, mut live) = live(host, handle, &container_ip)?;
    for rule in netout_rules {
        if !live.egress.contains(&rule) {
            live.egress.push(rule);
        }
    }
    let mut after = before.clone();
    after.live = Some(live);
    Ok(change(host, config, &before, &after)?)
}
