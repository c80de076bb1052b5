//! What the file says of packets that leave the overlay (spec/cell.md §D.1). The CNI wrapper's file says
//! the same.

use std::num::NonZeroU16;

use ipnet::IpNet;
use netfilter::{
    Limit,
    egress::{DenyNetworks, Manner, Outbound},
};
use serde::Deserialize;
use service::config::Check;

use super::{Raw, rate};

/// Where VXLAN is received, unless the configuration says otherwise.
const DEFAULT_VTEP_PORT: NonZeroU16 = NonZeroU16::new(4789).expect("is not zero");

/// `null` where a list is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawDenyNetworks {
    always: Option<Vec<String>>,
    running: Option<Vec<String>>,
    staging: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawOutbound {
    limit: bool,
    logging: bool,
    burst: Option<i64>,
    rate_per_sec: Option<i64>,
    dry_run: bool,
}

/// What holds for all containers.
pub(super) fn manner(check: &mut Check, raw: &Raw) -> Manner {
    let outbound = outbound(check, &raw.outbound_connections);
    // What is wrong with these is told where they are read for packets between apps.
    let quietly = |value, default| rate(&mut Check::new(), ("", value), default);
    Manner {
        deny: deny_networks(check, &raw.deny_networks),
        vtep_port: vtep_port(check, raw.vtep_port),
        told: raw.iptables_asg_logging,
        denied_per_second: quietly(raw.iptables_denied_logs_per_sec, 1),
        accepted_per_second: quietly(raw.iptables_accepted_udp_logs_per_sec, 100),
        outbound,
    }
}

/// What is only tried is tried whether or not it is the limit.
fn outbound(check: &mut Check, raw: &RawOutbound) -> Option<Outbound> {
    let RawOutbound { limit, logging, burst, rate_per_sec, dry_run } = *raw;
    if !limit && !dry_run {
        return None;
    }
    let per_second = rate(check, ("outbound_connections.rate_per_sec", rate_per_sec), 100);
    let burst = rate(check, ("outbound_connections.burst", burst), 1000);
    Some(Outbound { limit: Limit { per_second, burst }, logging, dry_run })
}

fn deny_networks(check: &mut Check, raw: &RawDenyNetworks) -> DenyNetworks {
    let mut nets = |key: &str, texts: &Option<Vec<String>>| {
        let texts = texts.iter().flatten();
        let net = |text: &String| check.parsed(key, text, "a network such as 10.0.0.0/8");
        texts.filter_map(net).map(|net: IpNet| net.trunc()).collect()
    };
    DenyNetworks {
        always: nets("deny_networks.always", &raw.always),
        running: nets("deny_networks.running", &raw.running),
        staging: nets("deny_networks.staging", &raw.staging),
    }
}

/// 0 is the same as nothing.
fn vtep_port(check: &mut Check, given: Option<i64>) -> NonZeroU16 {
    let given = given.filter(|port| *port != 0);
    let port = given.and_then(|port| check.port("vtep_port", port));
    port.and_then(NonZeroU16::new).unwrap_or(DEFAULT_VTEP_PORT)
}
