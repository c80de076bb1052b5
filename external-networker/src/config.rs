//! The configuration file (spec/cell.md §B.1; and §C.2, since the host's rules are written here, too).
//! Every mistake is reported at once. What a CNI wrapper in the plugins' configuration is told counts where
//! this file says nothing.

mod egress;
mod faults;
#[cfg(test)]
mod tests;

use std::{
    net::Ipv4Addr,
    num::NonZeroU16,
    path::{Path, PathBuf},
    time::Duration,
};

use cni::Network;
use gocompat::json::{self, JsonError, Stray};
use ipnet::Ipv6Net;
use netfilter::Backend;
use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::{
    egress::Families,
    ports::PortPool,
    proxy::Proxy,
    rules::Cell,
    store_owner::StoreOwner,
    surroundings::{self, Surroundings},
};

pub(crate) use faults::Faults;

/// The name messages are given until the configuration says otherwise.
pub(crate) const DEFAULT_LOG_PREFIX: &str = "cfnetworking";

/// What the networker works with.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub cni_plugin_dir: PathBuf,
    pub cni_config_dir: PathBuf,
    /// How long one CNI plugin may take.
    pub cni_limit: Duration,
    /// Where namespaces are pinned, one file each.
    pub bind_mount_dir: PathBuf,
    pub ports: PortPool,
    /// The container store.
    pub datastore: PathBuf,
    /// To whom it belongs, if not to us.
    pub store_owner: Option<StoreOwner>,
    pub iptables_lock_file: PathBuf,
    /// `host:port` of the policy agent, where there is one.
    pub agent: Option<String>,
    /// How long the agent may take to put policies in place.
    pub agent_limit: Duration,
    pub log_prefix: String,
    pub search_domains: Vec<String>,
    /// The firewall to write: the one the policy agent writes.
    pub backend: Backend,
    /// What containers' rules have in common; complete once the cell has been looked at
    /// ([`Config::look_around`]).
    pub cell: Cell,
    /// What is to be learnt by looking at the cell.
    surroundings: Surroundings,
    /// Whether containers may use IPv6, of which nothing is refused to them.
    pub allow_unfiltered_ipv6: bool,
    /// Where containers have an address of IPv6 as well, if they are to have one.
    pub second_network: Option<Ipv6Net>,
    /// What is sent to a proxy inside each container, if anything is.
    pub proxy: Option<Proxy>,
    /// What the file says that nobody here reads.
    pub strays: Vec<Stray>,
}

/// Keys of the Go networker's and the CNI wrapper's files that say nothing to us (spec/cell.md §B.1, §C.2).
const FOR_OTHERS: [&str; 7] =
    ["proxy_uid", "cniVersion", "name", "type", "delegate", "runtimeConfig", "metadata"];

/// A configuration nothing can be done with.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    #[error("reading config {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("parsing config {}", path.display())]
    Parse {
        path: PathBuf,
        #[source]
        source: JsonError,
    },
    #[error(transparent)]
    Invalid(#[from] Faults),
}

/// The file as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    cni_plugin_dir: String,
    cni_config_dir: String,
    cni_timeout_seconds: u64,
    bind_mount_dir: String,
    state_file: String,
    start_port: i64,
    total_ports: i64,
    datastore: String,
    datastore_file_owner: String,
    datastore_file_group: String,
    iptables_lock_file: String,
    overlay_network: String,
    instance_address: String,
    underlay_interfaces: Vec<String>,
    temporary_underlay_interface_names: Vec<String>,
    underlay_ips: Vec<String>,
    no_masquerade_cidr_range: String,
    iptables_c2c_logging: bool,
    deny_networks: egress::RawDenyNetworks,
    outbound_connections: egress::RawOutbound,
    iptables_asg_logging: bool,
    iptables_denied_logs_per_sec: i64,
    iptables_accepted_udp_logs_per_sec: i64,
    vtep_name: String,
    vtep_port: i64,
    ingress_tag: String,
    policy_agent_force_poll_address: String,
    policy_agent_timeout_seconds: u64,
    log_prefix: String,
    backend: String,
    search_domains: Vec<String>,
    dns_servers: Vec<String>,
    host_tcp_services: Vec<String>,
    host_udp_services: Vec<String>,
    proxy_redirect_cidr: String,
    enable_ingress_proxy_redirect: bool,
    proxy_port: i64,
    allow_unfiltered_ipv6: bool,
    dual_stack: bool,
    container_network_v6: String,
}

impl Config {
    /// Reads and checks the file at `path`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let bytes = std::fs::read(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let parse = |bytes: &[u8]| {
            json::from_slice_noting(bytes, &FOR_OTHERS)
                .map_err(|source| ConfigError::Parse { path: path.to_owned(), source })
        };
        let (raw, strays): (Raw, _) = parse(&bytes)?;
        // Where there is no network to be found, it is missed when one is needed.
        let (raw, strays) = match Network::discover(raw.cni_config_dir.as_ref()) {
            Ok(found) if !found.network.wrapper().is_empty() => {
                parse(&behind(found.network.wrapper(), &bytes))?
            }
            _ => (raw, strays),
        };
        match Self::check(&raw) {
            Ok(config) => Ok(Self { strays, ..config }),
            Err(faults) => Err(faults.beside(&strays).into()),
        }
    }

    fn check(raw: &Raw) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let services = faults.services(&raw.host_tcp_services, &raw.host_udp_services);
        let overlay = faults.optional(
            "overlay_network",
            &raw.overlay_network,
            "a network such as 10.255.0.0/16",
        );
        let config = Self {
            cni_plugin_dir: faults.path("cni_plugin_dir", &raw.cni_plugin_dir),
            cni_config_dir: faults.path("cni_config_dir", &raw.cni_config_dir),
            cni_limit: seconds_or(raw.cni_timeout_seconds, 60),
            bind_mount_dir: faults.path("bind_mount_dir", &raw.bind_mount_dir),
            ports: PortPool {
                path: faults.path("state_file", &raw.state_file),
                range: faults.port_range(raw.start_port, raw.total_ports),
            },
            datastore: faults.path("datastore", &raw.datastore),
            store_owner: StoreOwner::named(&raw.datastore_file_owner, &raw.datastore_file_group),
            iptables_lock_file: faults.path("iptables_lock_file", &raw.iptables_lock_file),
            agent: Some(raw.policy_agent_force_poll_address.clone())
                .filter(|text| !text.is_empty()),
            agent_limit: seconds_or(raw.policy_agent_timeout_seconds, 30),
            log_prefix: or(&raw.log_prefix, DEFAULT_LOG_PREFIX).to_owned(),
            search_domains: raw.search_domains.clone(),
            backend: faults
                .parsed("backend", or(&raw.backend, "iptables"), "auto, iptables or nftables")
                .unwrap_or_default(),
            cell: Cell {
                overlay: overlay.unwrap_or_default(),
                address: faults
                    .parsed("instance_address", &raw.instance_address, "an IPv4 address")
                    .unwrap_or(Ipv4Addr::UNSPECIFIED),
                underlay: underlay(&mut faults, raw),
                vtep: faults.interface("vtep_name", or(&raw.vtep_name, "silk-vtep")),
                ingress_mark: faults.mark("ingress_tag", or(&raw.ingress_tag, "ffff0000")),
                dns_servers: faults.dns_servers(&raw.dns_servers),
                host_services: services,
                manner: egress::manner(&mut faults, raw),
                tell_of_overlay: raw.iptables_c2c_logging,
                unmasqueraded: faults.optional(
                    "no_masquerade_cidr_range",
                    &raw.no_masquerade_cidr_range,
                    "a network such as 10.255.0.0/16",
                ),
            },
            surroundings: Surroundings {
                overlay,
                underlay: faults.addresses("underlay_ips", &raw.underlay_ips),
            },
            allow_unfiltered_ipv6: raw.allow_unfiltered_ipv6,
            second_network: second_network(&mut faults, raw),
            proxy: proxy(&mut faults, raw),
            strays: Vec::new(),
        };
        if faults.0.is_empty() { Ok(config) } else { Err(faults) }
    }
}

/// The file's text with what the CNI wrapper was told in front: of equal keys, the last one counts.
fn behind(wrapper: &Map<String, Value>, own: &[u8]) -> Vec<u8> {
    let own = own.trim_ascii();
    let own = own.strip_prefix(b"{").unwrap_or(own).trim_ascii_start();
    let entries =
        wrapper.iter().map(|(key, value)| format!("{}:{value}", Value::from(key.as_str())));
    let mut text = format!("{{{}", entries.collect::<Vec<_>>().join(",")).into_bytes();
    if !own.starts_with(b"}") {
        text.push(b',');
    }
    text.extend_from_slice(own);
    text
}

/// By name, if any are named; otherwise they are to be found by their addresses.
fn underlay(faults: &mut Faults, raw: &Raw) -> Vec<netfilter::Interface> {
    let temporary = &raw.temporary_underlay_interface_names;
    let (key, names) = match (&raw.underlay_interfaces, temporary, &raw.underlay_ips) {
        (names, ..) if !names.is_empty() => ("underlay_interfaces", names),
        (_, names, _) if !names.is_empty() => ("temporary_underlay_interface_names", names),
        (_, none, addresses) => {
            if addresses.is_empty() {
                faults.missing("underlay_interfaces");
            }
            ("underlay_interfaces", none)
        }
    };
    faults.interfaces(key, names)
}

fn proxy(faults: &mut Faults, raw: &Raw) -> Option<Proxy> {
    const DEFAULT_PORT: NonZeroU16 = NonZeroU16::new(15001).expect("is not zero");
    let proxy = Proxy {
        outward: faults.optional(
            "proxy_redirect_cidr",
            &raw.proxy_redirect_cidr,
            "a network such as 10.255.0.0/16",
        ),
        inward: raw.enable_ingress_proxy_redirect,
        port: faults.port("proxy_port", raw.proxy_port, DEFAULT_PORT),
    };
    (proxy.outward.is_some() || proxy.inward).then_some(proxy)
}

/// The network containers have their second addresses in, where they have any.
fn second_network(faults: &mut Faults, raw: &Raw) -> Option<Ipv6Net> {
    if !raw.dual_stack {
        return None;
    }
    if raw.allow_unfiltered_ipv6 {
        faults.note(
            "config 'allow_unfiltered_ipv6' is true, and so is 'dual_stack', which filters it",
        );
    }
    if raw.enable_ingress_proxy_redirect {
        let of = "config 'enable_ingress_proxy_redirect' is true";
        faults
            .note(format_args!("{of}, of which 'dual_stack' knows nothing: the proxy takes IPv4"));
    }
    let (key, what) = ("container_network_v6", "a network such as fd00:255::/48");
    let net: Option<Ipv6Net> = faults.parsed(key, &raw.container_network_v6, what);
    net.map(|net| net.trunc())
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

impl Config {
    /// Which versions of IP a container may be told to speak.
    pub fn families(&self) -> Families {
        if self.second_network.is_some() { Families::Both } else { Families::One }
    }

    /// Learns from the cell what the file does not say. Only what writes rules needs that: what takes
    /// them away must work on a cell in any state.
    pub fn look_around(&mut self) -> Result<(), surroundings::Unknown> {
        let Cell { overlay, underlay, vtep, .. } = &mut self.cell;
        self.surroundings.look(vtep, overlay, underlay)
    }
}

fn seconds_or(seconds: u64, default: u64) -> Duration {
    Duration::from_secs(if seconds == 0 { default } else { seconds })
}

#[cfg(test)]
impl Config {
    /// A configuration for tests of what is done with one.
    pub fn example() -> Self {
        Self::check(&json::from_slice(tests::MINIMAL.as_bytes()).expect("an example is readable"))
            .expect("an example is right")
    }

    /// The same where containers have addresses of IPv6.
    pub fn dual_example() -> Self {
        let second_network = Some("fd00:255::/48".parse().expect("is a network"));
        Self { second_network, ..Self::example() }
    }
}
