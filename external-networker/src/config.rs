//! The configuration file (spec/cell.md §B.1; and §C.2, since the host's rules are written here, too).
//! Every mistake is reported at once.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    num::NonZeroU16,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use gocompat::json::{self, JsonError};
use netfilter::Backend;
use policy::Protocol;
use serde::Deserialize;
use thiserror::Error;

use crate::{ports::PortPool, rules::Cell};

/// The name messages are given until the configuration says otherwise.
pub(crate) const DEFAULT_LOG_PREFIX: &str = "cfnetworking";

/// Where VXLAN is received, unless the configuration says otherwise.
const DEFAULT_VTEP_PORT: NonZeroU16 = NonZeroU16::new(4789).expect("is not zero");

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
    pub iptables_lock_file: PathBuf,
    /// `host:port` of the policy agent, where there is one.
    pub agent: Option<String>,
    /// How long the agent may take to put policies in place.
    pub agent_limit: Duration,
    pub log_prefix: String,
    pub search_domains: Vec<String>,
    /// The firewall to write: the one the policy agent writes.
    pub backend: Backend,
    /// What containers' rules have in common.
    pub cell: Cell,
}

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

/// Every mistake, in the order of the keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Error)]
pub(crate) struct Faults(Vec<String>);

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
    iptables_lock_file: String,
    overlay_network: String,
    instance_address: String,
    underlay_interfaces: Vec<String>,
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
}

impl Config {
    /// Reads and checks the file at `path`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let bytes = std::fs::read(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let raw = json::from_slice(&bytes)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source })?;
        Ok(Self::check(raw)?)
    }

    fn check(raw: Raw) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let services = faults.services(&raw.host_tcp_services, &raw.host_udp_services);
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
            iptables_lock_file: faults.path("iptables_lock_file", &raw.iptables_lock_file),
            agent: Some(raw.policy_agent_force_poll_address).filter(|text| !text.is_empty()),
            agent_limit: seconds_or(raw.policy_agent_timeout_seconds, 30),
            log_prefix: or(&raw.log_prefix, DEFAULT_LOG_PREFIX).to_owned(),
            search_domains: raw.search_domains,
            backend: faults
                .parsed("backend", or(&raw.backend, "iptables"), "auto, iptables or nftables")
                .unwrap_or_default(),
            cell: Cell {
                overlay: faults
                    .parsed(
                        "overlay_network",
                        &raw.overlay_network,
                        "a network such as 10.255.0.0/16",
                    )
                    .unwrap_or_default(),
                address: faults
                    .parsed("instance_address", &raw.instance_address, "an IPv4 address")
                    .unwrap_or(Ipv4Addr::UNSPECIFIED),
                underlay: faults.interfaces("underlay_interfaces", &raw.underlay_interfaces),
                vtep: faults.interface("vtep_name", or(&raw.vtep_name, "silk-vtep")),
                vtep_port: faults.port("vtep_port", raw.vtep_port, DEFAULT_VTEP_PORT),
                ingress_mark: faults.mark("ingress_tag", or(&raw.ingress_tag, "ffff0000")),
                dns_servers: faults.dns_servers(&raw.dns_servers),
                host_services: services,
            },
        };
        if !raw.proxy_redirect_cidr.is_empty() || raw.enable_ingress_proxy_redirect {
            faults.note("proxy_redirect_cidr and enable_ingress_proxy_redirect are not supported");
        }
        if faults.0.is_empty() { Ok(config) } else { Err(faults) }
    }
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

fn seconds_or(seconds: u64, default: u64) -> Duration {
    Duration::from_secs(if seconds == 0 { default } else { seconds })
}

// === impl Faults ===

/// A stand-in, which never leaves, is handed out for a value that is missing or wrong.
impl Faults {
    fn note(&mut self, fault: impl fmt::Display) {
        self.0.push(fault.to_string());
    }

    fn missing(&mut self, key: &str) {
        self.note(format_args!("missing required config '{key}'"));
    }

    fn path(&mut self, key: &str, text: &str) -> PathBuf {
        if text.is_empty() {
            self.missing(key);
        }
        text.into()
    }

    fn parsed<T: std::str::FromStr>(&mut self, key: &str, text: &str, what: &str) -> Option<T> {
        if text.is_empty() {
            self.missing(key);
            return None;
        }
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.note(format_args!("config '{key}' is {text:?}, expected {what}"));
        }
        parsed
    }

    fn port_range(&mut self, start: i64, total: i64) -> RangeInclusive<u16> {
        for (key, value) in [("start_port", start), ("total_ports", total)] {
            if value == 0 {
                self.missing(key);
            }
        }
        if start == 0 || total == 0 {
            return 0..=0;
        }
        // The BOSH defaults, 61000 and 5000, run past the last port there is.
        let end = start.saturating_add(total).saturating_sub(1).min(i64::from(u16::MAX));
        match (u16::try_from(start), u16::try_from(end)) {
            (Ok(start), Ok(end)) if start <= end => start..=end,
            _ => {
                self.note(format_args!(
                    "config 'start_port' is {start} and 'total_ports' {total}, expected a range of ports"
                ));
                0..=0
            }
        }
    }

    /// 0 is the same as nothing.
    fn port(&mut self, key: &str, given: i64, default: NonZeroU16) -> NonZeroU16 {
        match u16::try_from(given) {
            Ok(port) => NonZeroU16::new(port).unwrap_or(default),
            Err(_) => {
                self.note(format_args!("config '{key}' is {given}, expected a port"));
                default
            }
        }
    }

    fn interface(&mut self, key: &str, text: &str) -> netfilter::Interface {
        self.parsed(key, text, "the name of an interface")
            .unwrap_or_else(|| "none".parse().expect("a short word can name an interface"))
    }

    fn interfaces(&mut self, key: &str, texts: &[String]) -> Vec<netfilter::Interface> {
        if texts.is_empty() {
            self.missing(key);
        }
        texts.iter().map(|text| self.interface(key, text)).collect()
    }

    /// Hexadecimal without `0x`. The low half is where apps' tags are: with anything there, what
    /// comes in through a mapped port could pass for an app, and an app for that (spec/cell.md §G).
    fn mark(&mut self, key: &str, text: &str) -> u32 {
        match u32::from_str_radix(text, 16) {
            Ok(mark) if mark > 0 && mark.trailing_zeros() >= 16 => mark,
            _ => {
                self.note(format_args!(
                    "config '{key}' is {text:?}, expected hexadecimal digits that end in 0000"
                ));
                0
            }
        }
    }

    fn dns_servers(&mut self, texts: &[String]) -> Vec<IpAddr> {
        let mut servers = Vec::new();
        for text in texts {
            match text.parse() {
                Ok(server) => servers.push(server),
                Err(_) => {
                    let fault = format!("invalid DNS server {text:?}, must be valid IP address");
                    self.note(fault);
                }
            }
        }
        servers
    }

    fn services(&mut self, tcp: &[String], udp: &[String]) -> Vec<(Protocol, SocketAddrV4)> {
        let tcp = tcp.iter().map(|text| ("host_tcp_services", Protocol::Tcp, text));
        let udp = udp.iter().map(|text| ("host_udp_services", Protocol::Udp, text));
        let mut services = Vec::new();
        for (key, protocol, text) in tcp.chain(udp) {
            let address = self.parsed(key, text, "an IPv4 address and a port such as 10.0.0.1:80");
            services.extend(address.map(|address| (protocol, address)));
        }
        services
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

#[cfg(test)]
impl Config {
    /// A configuration for tests of what is done with one.
    pub fn example() -> Self {
        Self::check(json::from_slice(tests::MINIMAL.as_bytes()).expect("an example is readable"))
            .expect("an example is right")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const MINIMAL: &str = r#"{"cni_plugin_dir":"/usr/lib/cni","cni_config_dir":"/etc/cni",
        "bind_mount_dir":"/run/netns","state_file":"/var/state.json","start_port":61000,"total_ports":5000,
        "datastore":"/var/store.json","iptables_lock_file":"/run/lock","overlay_network":"10.255.0.0/16",
        "instance_address":"10.0.16.14","underlay_interfaces":["eth0"]}"#;

    fn check(text: &str) -> Result<Config, String> {
        Config::check(json::from_slice(text.as_bytes()).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_may_be_missing_has_defaults() {
        let config = check(MINIMAL).unwrap();
        assert_eq!(config.log_prefix, "cfnetworking");
        assert_eq!(config.agent, None);
        assert_eq!(config.cni_limit, Duration::from_secs(60));
        assert_eq!(config.cell.vtep.as_str(), "silk-vtep");
        assert_eq!(config.cell.vtep_port.get(), 4789);
        assert_eq!(config.cell.ingress_mark, 0xffff_0000);
        assert_eq!(config.ports.range, 61000..=65535);
    }

    #[test]
    fn wrong_values_are_named_beside_each_other() {
        let wrong = MINIMAL.replace("10.0.16.14", "10.0.16").replace("eth0", "no interface").replace(
            "{",
            r#"{"dns_servers":["banana"],"ingress_tag":"0x1","vtep_port":70000,"host_tcp_services":["10.0.0.1"],"proxy_redirect_cidr":"10.0.0.0/8","#,
        );
        assert_eq!(
            check(&wrong).unwrap_err(),
            "config 'host_tcp_services' is \"10.0.0.1\", expected an IPv4 address and a port such as 10.0.0.1:80; \
             config 'instance_address' is \"10.0.16\", expected an IPv4 address; \
             config 'underlay_interfaces' is \"no interface\", expected the name of an interface; \
             config 'vtep_port' is 70000, expected a port; \
             config 'ingress_tag' is \"0x1\", expected hexadecimal digits that end in 0000; \
             invalid DNS server \"banana\", must be valid IP address; \
             proxy_redirect_cidr and enable_ingress_proxy_redirect are not supported"
        );
    }

    #[test]
    fn a_mark_that_could_be_an_apps_is_refused() {
        for (tag, good) in [("ffff0000", true), ("10000", true), ("0", false), ("ffff0001", false)]
        {
            let text = MINIMAL.replace('{', &format!("{{\"ingress_tag\":\"{tag}\","));
            assert_eq!(check(&text).is_ok(), good, "{tag}");
        }
    }

    #[test]
    fn a_range_without_ports_is_refused() {
        for (start, total) in [("61000", "70000"), ("-1", "5000"), ("61000", "1")] {
            let text = MINIMAL.replace("61000", start).replace("5000", total);
            assert_eq!(check(&text).is_ok(), start == "61000", "{start} {total}");
        }
    }

    #[test]
    fn every_missing_key_is_named_at_once() {
        let keys = [
            "cni_plugin_dir",
            "cni_config_dir",
            "bind_mount_dir",
            "state_file",
            "start_port",
            "total_ports",
            "datastore",
            "iptables_lock_file",
            "overlay_network",
            "instance_address",
            "underlay_interfaces",
        ];
        let expected = keys.map(|key| format!("missing required config '{key}'")).join("; ");
        assert_eq!(check("{}").unwrap_err(), expected);
    }
}
