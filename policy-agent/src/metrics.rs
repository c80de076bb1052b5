//! `GET /metrics` on the local listener: what the last pass found and did, what was denied, and what
//! the existing system's netmon reports (spec/cell.md §F), in the words of Prometheus. Made anew for
//! each page, so that what cannot be read is missing from it, rather than old.

mod devices;

use axum::{
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use netfilter::Interface;
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        info::Info,
    },
    registry::{Registry, Unit},
};
use tokio::sync::watch;

use crate::{
    denied::{Ledger, Pair, Told, Verdict},
    groups,
    networker::{self, Repairs},
    status::Status,
};
use devices::{Device, Devices};

const PREFIX: &str = "netman_agent";

const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// What a page is made of, besides the status.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    pub told: Told,
    pub vtep: Interface,
    pub networker: networker::Told,
    /// Why what is enforced is not on disk, or will hardly be, if so.
    pub disk: watch::Receiver<Option<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PairLabels {
    source: String,
    destination: String,
    verdict: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChainLabels {
    table: String,
    chain: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StandingLabels {
    standing: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeviceLabels {
    network: &'static str,
    device: String,
}

/// The page.
pub(crate) fn page(
    status: &Status,
    groups: Option<&groups::Status>,
    server_answers: bool,
    sources: &Sources,
) -> Response {
    let devices = Devices::read(sources.vtep.as_str());
    let mut page = String::new();
    let mut registry = levels(status, server_answers, &sources.told.ledger(), &devices);
    let ours = registry.sub_registry_with_prefix(PREFIX);
    let on_disk = ConstGauge::new(u64::from(sources.disk.borrow().is_none()));
    ours.register("state_on_disk", "Whether a restart finds what is enforced on disk", on_disk);
    of_guards(status, sources.networker.get().as_ref(), ours);
    if let Some(groups) = groups {
        of_groups(groups, ours);
    }
    match text::encode(&mut page, &registry) {
        Ok(()) => ([(CONTENT_TYPE, OPEN_METRICS)], page).into_response(),
        // Writing to a string fails only if the library refuses a value.
        Err(error) => {
            tracing::error!(%error, "Could not write the page of metrics.");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn levels(status: &Status, server_answers: bool, ledger: &Ledger, devices: &Devices) -> Registry {
    let mut registry = Registry::default();
    let ours = registry.sub_registry_with_prefix(PREFIX);
    let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    ours.register("build", "Which agent this is", version);
    of_passes(status, server_answers, ours);
    of_packets(ledger, ours);
    of_host(devices, ours);
    registry
}

fn of_passes(status: &Status, server_answers: bool, to: &mut Registry) {
    let mut count = |name, help, value: u64| to.register(name, help, ConstCounter::new(value));
    count("passes", "Passes since the agent started", status.pass);
    count(
        "repairs",
        "Times the kernel had been changed by others, and was put right",
        status.repairs,
    );
    count(
        "connections_cut",
        "Connections cut because no policy allows them",
        status.connections_cut,
    );
    let enforces = status.held.is_none() && status.enforced.is_some() && !status.claims_nothing();
    let mut level = |name, help, value: u64| to.register(name, help, ConstGauge::new(value));
    level(
        "enforcing",
        "Whether the kernel holds what the last answer asks for, and the agent says so to the server",
        enforces.into(),
    );
    level(
        "server_answers",
        "Whether the policy server gives usable answers",
        server_answers.into(),
    );
    let unknown = status.containers_failure.is_some();
    level("containers_unknown", "Whether it is not known which are here", unknown.into());
    level(
        "rules_of_former_run",
        "Whether rules of a former run are in force, for want of any answer",
        status.of_former_run.into(),
    );
    level("containers", "Containers with an identity", length(status.containers));
    level("apps", "Apps of these containers", length(status.apps.len()));
    level("elements", "Elements of sets the kernel holds for us", length(status.elements));
    level("rules", "Rules the kernel holds for us", length(status.rules));
    let chains = Family::<ChainLabels, Gauge>::default();
    for ((table, chain), rules) in &*status.chains {
        let labels = ChainLabels { table: table.to_string(), chain: chain.clone() };
        chains.get_or_create(&labels).set(i64::try_from(*rules).unwrap_or(i64::MAX));
    }
    to.register("chain_rules", "Rules of each chain of the host, whosever they are", chains);
    let took = std::time::Duration::from_millis(status.duration_ms).as_secs_f64();
    to.register_with_unit("pass", "Time the last pass took", Unit::Seconds, ConstGauge::new(took));
}

/// Of what the networker wrote, and of its repairs, if it is started for them.
fn of_guards(status: &Status, repairs: Option<&Repairs>, to: &mut Registry) {
    let missing = ConstGauge::new(length(status.unguarded.len()));
    to.register("unguarded", "Chains of the networker that are not whole", missing);
    let bypassed = ConstGauge::new(length(status.bypassed.len()));
    let help = "Rules of others that let containers' packets go before they come to those of the networker";
    to.register("bypassed", help, bypassed);
    let in_part = ConstGauge::new(length(status.bypassed_in_part.len()));
    to.register(
        "bypassed_in_part",
        "Rules of others that may let some of containers' packets go before that",
        in_part,
    );
    let Some(Repairs { runs, failures, containers, .. }) = repairs else { return };
    let mut count = |name, help, value: u64| to.register(name, help, ConstCounter::new(value));
    count("networker_runs", "Times the networker was started to repair its rules", *runs);
    count("networker_failures", "Times it could not repair all of them", *failures);
    count("networker_repairs", "Containers it has put something right of", *containers);
}

fn of_groups(status: &groups::Status, to: &mut Registry) {
    let standings = Family::<StandingLabels, Gauge>::default();
    for standing in groups::Standing::NAMES {
        standings.get_or_create(&StandingLabels { standing }).set(0);
    }
    for standing in status.containers.values() {
        standings.get_or_create(&StandingLabels { standing: standing.name() }).inc();
    }
    let help = "Containers, by whether the kernel enforces their security groups";
    to.register("security_group_containers", help, standings);
    let mut count = |name, help, value: u64| to.register(name, help, ConstCounter::new(value));
    count(
        "security_group_repairs",
        "Times chains of security groups had been changed by others, and were put right",
        status.repairs,
    );
    count(
        "security_group_connections_cut",
        "Connections cut because no security group allows them",
        status.connections_cut,
    );
}

fn of_packets(ledger: &Ledger, to: &mut Registry) {
    let packets = Family::<PairLabels, Counter>::default();
    for (Pair { source, destination, reason }, tally) in ledger.pairs() {
        let named = |app: &Option<String>| app.clone().unwrap_or_else(|| "unknown".into());
        let labels = PairLabels {
            source: named(source),
            destination: named(destination),
            verdict: reason.verdict().as_str(),
            reason: reason.as_str(),
        };
        packets.get_or_create(&labels).inc_by(tally.packets);
    }
    to.register("packets", "Packets the rules told of, at least, by both apps", packets);
    let denied = ConstCounter::new(ledger.packets(Verdict::Denied));
    to.register("packets_denied", "Packets the rules told of as denied, at least", denied);
    let others = ConstCounter::new(ledger.others);
    to.register(
        "packets_of_other_apps",
        "Packets of more pairs of apps than are told apart",
        others,
    );
    let lost = ConstCounter::new(ledger.lost);
    to.register("packets_unheard", "Times the kernel told of more packets than were heard", lost);
}

fn of_host(devices: &Devices, to: &mut Registry) {
    let Devices { count, overlay, underlay, connections } = devices;
    if let Some(count) = count {
        to.register("interfaces", "Network interfaces of the host", ConstGauge::new(*count));
    }
    if let Some((used, limit)) = connections {
        to.register("connections", "Connections the kernel remembers", ConstGauge::new(*used));
        to.register("connections_limit", "Most it can remember", ConstGauge::new(*limit));
    }
    let networks = [("overlay", overlay), ("underlay", underlay)];
    let counted = |name, help, of: fn(&Device) -> u64, to: &mut Registry| {
        let family = Family::<DeviceLabels, Counter>::default();
        for (network, device) in networks {
            if let Some(device) = device {
                let labels = DeviceLabels { network, device: device.name.clone() };
                family.get_or_create(&labels).inc_by(of(device));
            }
        }
        to.register(name, help, family);
    };
    counted("sent_bytes", "Bytes sent", |device| device.sent_bytes, to);
    counted("received_bytes", "Bytes received", |device| device.received_bytes, to);
    counted("sent_dropped", "Packets not sent", |device| device.sent_dropped, to);
    counted(
        "received_dropped",
        "Packets received for nothing",
        |device| device.received_dropped,
        to,
    );
}

fn length(of: usize) -> u64 {
    u64::try_from(of).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use netfilter::Table;
    use netfilter_events::nflog::Packet;

    use super::*;
    use crate::status::Enforced;

    #[test]
    fn a_page_tells_passes_chains_and_devices() {
        let chains = [((Table::Filter, "vpa--forward".to_owned()), 8)].into_iter().collect();
        let status = Status {
            pass: 7,
            repairs: 2,
            connections_cut: 3,
            chains: std::sync::Arc::new(chains),
            ..Status::unknown()
        };
        let device = Device {
            name: "silk-vtep".into(),
            sent_bytes: 900,
            received_bytes: 700,
            sent_dropped: 3,
            received_dropped: 0,
        };
        let devices = Devices {
            count: Some(4),
            overlay: Some(device),
            underlay: None,
            connections: Some((10, 262_144)),
        };
        let mut ledger = Ledger::new(NonZeroU32::MIN, NonZeroU32::MIN);
        let header = netfilter_events::packet::Header {
            source: [10, 255, 31, 2].into(),
            destination: [10, 255, 30, 3].into(),
            transport: netfilter_events::packet::Transport::Other(132),
        };
        let prefix = "DENY_C2C_IN".to_owned();
        let packet = Packet { prefix, mark: 0, input: None, output: None, header: Some(header) };
        ledger.note(&packet, &Default::default());

        let mut page = String::new();
        text::encode(&mut page, &levels(&status, false, &ledger, &devices)).unwrap();
        for line in [
            "netman_agent_passes_total 7",
            "netman_agent_repairs_total 2",
            "netman_agent_connections_cut_total 3",
            "netman_agent_enforcing 0",
            "netman_agent_server_answers 0",
            "netman_agent_chain_rules{table=\"filter\",chain=\"vpa--forward\"} 8",
            "netman_agent_packets_total{source=\"unknown\",destination=\"unknown\",verdict=\"denied\",reason=\"no_policy\"} 1",
            "netman_agent_packets_denied_total 1",
            "netman_agent_interfaces 4",
            "netman_agent_connections 10",
            "netman_agent_sent_bytes_total{network=\"overlay\",device=\"silk-vtep\"} 900",
            "netman_agent_sent_dropped_total{network=\"overlay\",device=\"silk-vtep\"} 3",
        ] {
            assert!(page.lines().any(|told| told == line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn a_cell_that_claims_nothing_is_not_said_to_enforce() {
        let enforces = |status: &Status| {
            let mut registry = Registry::default();
            of_passes(status, true, &mut registry);
            let mut page = String::new();
            text::encode(&mut page, &registry).unwrap();
            page.contains("\nenforcing 1\n")
        };
        let enforced = Some(Enforced { apps: Default::default(), version: None });
        let whole = Status { enforced, held: None, ..Status::unknown() };
        assert!(enforces(&whole));
        let why = || Some("no such file".to_owned());
        assert!(!enforces(&Status { containers_failure: why(), ..whole.clone() }));
        assert!(!enforces(&Status { policies_disabled: true, ..whole.clone() }));
        assert!(!enforces(&Status { held: why(), ..whole }));
    }
}
