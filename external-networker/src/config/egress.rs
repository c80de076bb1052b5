//! What the file says of packets that leave the overlay (spec/cell.md §C.2).

use std::num::{NonZeroU16, NonZeroU32};

use netfilter::{
    Limit,
    egress::{DenyNetworks, Manner, Outbound},
};
use serde::Deserialize;

use super::{Faults, Raw};

/// Where VXLAN is received, unless the configuration says otherwise.
const DEFAULT_VTEP_PORT: NonZeroU16 = NonZeroU16::new(4789).expect("is not zero");

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawDenyNetworks {
    always: Vec<String>,
    running: Vec<String>,
    staging: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawOutbound {
    limit: bool,
    logging: bool,
    burst: i64,
    rate_per_sec: i64,
    dry_run: bool,
}

/// What holds for all containers.
pub(super) fn manner(faults: &mut Faults, raw: &Raw) -> Manner {
    let RawDenyNetworks { always, running, staging } = &raw.deny_networks;
    let denied = ("iptables_denied_logs_per_sec", raw.iptables_denied_logs_per_sec);
    let accepted = ("iptables_accepted_udp_logs_per_sec", raw.iptables_accepted_udp_logs_per_sec);
    Manner {
        vtep_port: faults.port("vtep_port", raw.vtep_port, DEFAULT_VTEP_PORT),
        deny: DenyNetworks {
            always: faults.nets("deny_networks.always", always),
            running: faults.nets("deny_networks.running", running),
            staging: faults.nets("deny_networks.staging", staging),
        },
        told: raw.iptables_asg_logging,
        denied_per_second: faults.rate(denied.0, denied.1, 1),
        accepted_per_second: faults.rate(accepted.0, accepted.1, 100),
        outbound: raw.outbound_connections.check(faults),
    }
}

impl RawOutbound {
    /// What is only tried is tried whether or not it is the limit.
    fn check(&self, faults: &mut Faults) -> Option<Outbound> {
        let Self { limit, logging, burst, rate_per_sec, dry_run } = *self;
        if !limit && !dry_run {
            return None;
        }
        let per_second = faults.rate("outbound_connections.rate_per_sec", rate_per_sec, 100);
        let burst: NonZeroU32 = faults.rate("outbound_connections.burst", burst, 1000);
        Some(Outbound { limit: Limit { per_second, burst }, logging, dry_run })
    }
}
