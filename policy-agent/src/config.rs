mod egress;
#[cfg(test)]
mod tests;

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use gocompat::json::Stray;
use ipnet::Ipv6Net;
use netfilter::{Backend, Interface, egress::Manner};
use policy_client::internal::Settings;
use serde::Deserialize;
use service::config::{self, Check, ConfigError};

use crate::{ShadowModes, subnet};

/// What the agent runs with; see README.md for the keys.
#[derive(Debug, Clone)]
pub struct Config {
    /// The firewall to write.
    pub backend: Backend,
    /// What receipts are kept under; the host's name by default.
    pub cell_id: String,
    /// The policy server and our certificates for it.
    pub server: Settings,
    /// How often to ask a server that does not hold questions.
    pub poll_interval: Duration,
    /// How often the kernel is read back without any other reason.
    pub repair_interval: Duration,
    /// The container store (spec/cell.md §C.4).
    pub datastore: PathBuf,
    /// Where the cell's subnet and the overlay it is part of are told.
    pub(crate) subnet: subnet::Source,
    /// The VXLAN device.
    pub vtep: Interface,
    /// The mark the networker gives to what came in through a mapped port.
    pub ingress_mark: u32,
    /// Whether what a policy lets in is told, to begin with.
    pub tells_accepted: bool,
    /// How many such packets a second may be told of.
    pub accepted_per_second: NonZeroU32,
    /// Whether containers may reach each other whatever policies say.
    pub policies_disabled: bool,
    /// Whether routers in the overlay reach what containers serve without a policy.
    pub routers: bool,
    /// How many lines a second are written about packets of one app to another.
    pub lines_per_second: NonZeroU32,
    /// Where the server's last good answer is kept.
    pub state_file: Option<PathBuf>,
    /// What is only watched, and told of, instead of being enforced.
    pub shadow: ShadowModes,
    /// The lock other writers of rules on this cell share with us.
    pub iptables_lock_file: Option<PathBuf>,
    /// The networker's program and its arguments, by which it repairs what it wrote for containers; none
    /// if nobody is to start it.
    pub networker_repair: Vec<String>,
    /// Whether security groups are kept by us, or left to the networker.
    pub enable_groups: bool,
    /// How often to ask a server for security groups that does not hold questions.
    pub groups_poll_interval: Duration,
    /// What holds for all containers beside their security groups.
    pub(crate) egress: Manner,
    /// Where containers have an address of IPv6 as well, if they have one.
    pub(crate) second_network: Option<Ipv6Net>,
    /// Where the networker forces a cycle (spec/cell.md §D.8).
    pub admin_address: SocketAddr,
    /// Where logging is changed while the agent runs, if anywhere.
    pub debug_address: Option<SocketAddr>,
    /// `debug`, `info`, `warn` or `error`.
    pub log_level: String,
    /// What the file says that nobody here reads.
    pub strays: Vec<Stray>,
}

/// Keys of the Go programs' files, of 2016 and of 2024, that say nothing to us (spec/cell.md §D.1).
const FOR_OTHERS: [&str; 5] =
    ["vni", "metron_address", "loggregator", "log_prefix", "underlay_ips"];

/// The file as written; names as in spec/cell.md §D.1 where the predecessor had them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    policy_server_url: String,
    policy_server_urls: Vec<String>,
    ca_cert_file: String,
    client_cert_file: String,
    client_key_file: String,
    client_timeout_seconds: Option<i64>,
    backend: String,
    cell_id: String,
    poll_interval: Option<i64>,
    repair_interval_seconds: Option<i64>,
    cni_datastore_path: String,
    subnet_file: String,
    /// The same, as it was called in 2016.
    flannel_subnet_file: String,
    overlay_network: String,
    vtep_name: String,
    ingress_tag: String,
    disable_container_network_policy: bool,
    enable_overlay_ingress_rules: bool,
    iptables_c2c_logging: bool,
    iptables_asg_logging: bool,
    iptables_denied_logs_per_sec: Option<i64>,
    iptables_accepted_udp_logs_per_sec: Option<i64>,
    state_file: String,
    shadow: ShadowModes,
    iptables_lock_file: String,
    networker_repair: Vec<String>,
    enable_asg_syncing: bool,
    asg_poll_interval: Option<i64>,
    deny_networks: egress::RawDenyNetworks,
    outbound_connections: egress::RawOutbound,
    vtep_port: Option<i64>,
    dual_stack: bool,
    container_network_v6: String,
    debug_server_host: String,
    debug_server_port: Option<i64>,
    force_policy_poll_cycle_host: String,
    force_policy_poll_cycle_port: Option<i64>,
    log_level: String,
}

impl Config {
    /// Reads and checks the file at `path`; all mistakes are reported together.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let (raw, strays) = config::read_noting(path, &FOR_OTHERS)?;
        match Self::check(&raw) {
            Ok(config) => Ok(Self { strays, ..config }),
            Err(error) => Err(error.beside(&strays)),
        }
    }

    fn check(raw: &Raw) -> Result<Self, ConfigError> {
        let mut check = Check::new();
        let cell_id = if raw.cell_id.is_empty() { host_name() } else { raw.cell_id.clone() };
        let server = Settings {
            urls: check.https_urls(
                ("policy_server_url", &raw.policy_server_url),
                ("policy_server_urls", &raw.policy_server_urls),
            ),
            ca_cert_file: check.readable("ca_cert_file", &raw.ca_cert_file),
            client_cert_file: check.readable("client_cert_file", &raw.client_cert_file),
            client_key_file: check.readable("client_key_file", &raw.client_key_file),
            timeout: check.seconds("client_timeout_seconds", raw.client_timeout_seconds, 5, 1),
            cell: Some(cell_id.clone()),
        };
        let vtep_name = if raw.vtep_name.is_empty() { "silk-vtep" } else { &raw.vtep_name };
        let vtep: Option<Interface> =
            check.parsed("vtep_name", vtep_name, "the name of an interface");
        let vtep = vtep.unwrap_or_else(|| "none".parse().expect("is a valid interface name"));
        let config = Self {
            backend: backend(&mut check, &raw.backend),
            cell_id,
            server,
            poll_interval: check.seconds("poll_interval", raw.poll_interval, 5, 1),
            repair_interval: check.seconds(
                "repair_interval_seconds",
                raw.repair_interval_seconds,
                30,
                1,
            ),
            datastore: check.path("cni_datastore_path", &raw.cni_datastore_path),
            subnet: subnet(&mut check, raw, &vtep),
            vtep,
            ingress_mark: ingress_mark(&mut check, &raw.ingress_tag),
            tells_accepted: raw.iptables_c2c_logging,
            accepted_per_second: rate(
                &mut check,
                ("iptables_accepted_udp_logs_per_sec", raw.iptables_accepted_udp_logs_per_sec),
                100,
            ),
            policies_disabled: raw.disable_container_network_policy,
            routers: raw.enable_overlay_ingress_rules,
            lines_per_second: rate(
                &mut check,
                ("iptables_denied_logs_per_sec", raw.iptables_denied_logs_per_sec),
                1,
            ),
            state_file: optional(&raw.state_file),
            shadow: raw.shadow,
            iptables_lock_file: optional(&raw.iptables_lock_file),
            networker_repair: raw.networker_repair.clone(),
            enable_groups: raw.enable_asg_syncing,
            groups_poll_interval: check.seconds("asg_poll_interval", raw.asg_poll_interval, 60, 1),
            egress: egress::manner(&mut check, raw),
            second_network: second_network(&mut check, raw),
            admin_address: check.address(
                ("force_policy_poll_cycle_host", &raw.force_policy_poll_cycle_host),
                ("force_policy_poll_cycle_port", raw.force_policy_poll_cycle_port),
                SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 8722),
            ),
            debug_address: debug_address(&mut check, raw),
            log_level: check.log_level("log_level", &raw.log_level),
            strays: Vec::new(),
        };
        if config.shadow.any() && config.state_file.is_none() {
            check.fault("shadow", "needs state_file, beside which is remembered what was promoted");
        }
        if config.networker_repair.first().is_some_and(String::is_empty) {
            check.fault("networker_repair", "begins with no program");
        }
        if config.shadow.security_groups && !config.enable_groups {
            check.fault("shadow", "security_groups can be watched only with enable_asg_syncing");
        }
        check.finish()?;
        Ok(config)
    }

    /// Where the tag of routers is remembered.
    pub(crate) fn routers_file(&self) -> Option<PathBuf> {
        self.state_file.as_ref().map(|path| path.with_extension("router"))
    }

    /// Where it is remembered what was promoted.
    pub(crate) fn shadow_file(&self) -> Option<PathBuf> {
        self.state_file.as_ref().map(|path| path.with_extension("shadow.json"))
    }
}

fn backend(check: &mut Check, text: &str) -> Backend {
    match text {
        "" => Backend::default(),
        text => check.parsed("backend", text, "auto, iptables or nftables").unwrap_or_default(),
    }
}

/// The kernel counts no more than 10,000 a second. What is wrong is the least of them here.
fn rate(check: &mut Check, (key, value): (&str, Option<i64>), default: u32) -> NonZeroU32 {
    let rate = u32::try_from(value.unwrap_or(default.into())).ok();
    let rate = rate.filter(|rate| *rate <= 10_000).and_then(NonZeroU32::new);
    rate.unwrap_or_else(|| {
        check.fault(key, "must be from 1 to 10000 a second");
        NonZeroU32::MIN
    })
}

/// The existing system has no such file: there, the overlay is configured, and the device says which
/// part of it is the cell's.
fn subnet(check: &mut Check, raw: &Raw, vtep: &Interface) -> subnet::Source {
    let overlay = match raw.overlay_network.as_str() {
        "" => None,
        text => check.parsed("overlay_network", text, "a network such as 10.255.0.0/16"),
    };
    let file = optional(&raw.subnet_file).or_else(|| optional(&raw.flannel_subnet_file));
    match (file, overlay) {
        (None, Some(overlay)) => subnet::Source::Device { vtep: vtep.clone(), overlay },
        (file, _) => {
            if file.is_none() && raw.overlay_network.is_empty() {
                check.fault("subnet_file", "is missing, and so is overlay_network");
            }
            subnet::Source::File(file.unwrap_or_default())
        }
    }
}

/// The networker's file says the same.
fn second_network(check: &mut Check, raw: &Raw) -> Option<Ipv6Net> {
    if !raw.dual_stack {
        return None;
    }
    let what = "a network such as fd00:255::/48";
    let net: Option<Ipv6Net> =
        check.parsed("container_network_v6", &raw.container_network_v6, what);
    net.map(|net| net.trunc())
}

/// Nowhere, unless the file says where.
fn debug_address(check: &mut Check, raw: &Raw) -> Option<SocketAddr> {
    let port = raw.debug_server_port.filter(|port| *port != 0);
    if port.is_none() && raw.debug_server_host.is_empty() {
        return None;
    }
    Some(check.address(
        ("debug_server_host", &raw.debug_server_host),
        ("debug_server_port", port),
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 8721),
    ))
}

/// Peers can send any mark whose low half is not zero (spec/cell.md §G).
fn ingress_mark(check: &mut Check, tag: &str) -> u32 {
    const DEFAULT: u32 = 0xffff_0000;
    if tag.is_empty() {
        return DEFAULT;
    }
    match u32::from_str_radix(tag, 16) {
        Ok(mark) if mark != 0 && mark & 0xffff == 0 => mark,
        _ => {
            let what = "is not a mark such as ffff0000, hexadecimal and ending in 0000";
            check.fault("ingress_tag", format_args!("{tag:?} {what}"));
            DEFAULT
        }
    }
}

fn optional(path: &str) -> Option<PathBuf> {
    (!path.is_empty()).then(|| path.into())
}

fn host_name() -> String {
    nix::unistd::gethostname()
        .map_or_else(|_| "unknown".to_owned(), |name| name.to_string_lossy().into_owned())
}
