use std::{
    net::{Ipv4Addr, SocketAddr},
    num::{NonZeroU16, NonZeroU32},
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::Ipv4Net;
use netfilter::{Backend, Interface};
use policy_client::internal::Settings;
use serde::Deserialize;
use service::config::{self, Check, ConfigError};

use crate::{
    ShadowModes,
    groups::{DenyNetworks, Manner},
};

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
    /// Flannel's `subnet.env`: the cell's subnet and the overlay it is part of.
    pub subnet_file: PathBuf,
    /// The VXLAN device.
    pub vtep: Interface,
    /// The mark the networker gives to what came in through a mapped port.
    pub ingress_mark: u32,
    /// How many packets a second may be told of that a policy lets in; `None` if it is not to be told.
    pub told_accepted: Option<NonZeroU32>,
    /// How many lines a second are written about packets of one app to another.
    pub lines_per_second: NonZeroU32,
    /// Where the server's last good answer is kept.
    pub state_file: Option<PathBuf>,
    /// What is only watched, and told of, instead of being enforced.
    pub shadow: ShadowModes,
    /// The lock other writers of rules on this cell share with us.
    pub iptables_lock_file: Option<PathBuf>,
    /// Whether security groups are kept by us, or left to the networker.
    pub enable_groups: bool,
    /// How often to ask a server for security groups that does not hold questions.
    pub groups_poll_interval: Duration,
    /// What holds for all containers beside their security groups.
    pub(crate) groups: Manner,
    /// Where the networker forces a cycle (spec/cell.md §D.8).
    pub admin_address: SocketAddr,
    /// `debug`, `info`, `warn` or `error`.
    pub log_level: String,
}

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
    vtep_name: String,
    ingress_tag: String,
    iptables_c2c_logging: bool,
    iptables_denied_logs_per_sec: Option<i64>,
    iptables_accepted_udp_logs_per_sec: Option<i64>,
    state_file: String,
    shadow: ShadowModes,
    iptables_lock_file: String,
    enable_asg_syncing: bool,
    asg_poll_interval: Option<i64>,
    deny_networks: RawDenyNetworks,
    vtep_port: Option<i64>,
    force_policy_poll_cycle_host: String,
    force_policy_poll_cycle_port: Option<i64>,
    log_level: String,
}

/// `null` where a list is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawDenyNetworks {
    always: Option<Vec<String>>,
    running: Option<Vec<String>>,
    staging: Option<Vec<String>>,
}

/// Where VXLAN is received, unless the configuration says otherwise.
const DEFAULT_VTEP_PORT: NonZeroU16 = NonZeroU16::new(4789).expect("is not zero");

impl Config {
    /// Reads and checks the file at `path`; all mistakes are reported together.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::check(config::read(path)?)
    }

    fn check(raw: Raw) -> Result<Self, ConfigError> {
        let mut check = Check::new();
        let cell_id = if raw.cell_id.is_empty() { host_name() } else { raw.cell_id };
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
        let vtep = check.parsed("vtep_name", vtep_name, "the name of an interface");
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
            subnet_file: check.path("subnet_file", &raw.subnet_file),
            vtep: vtep.unwrap_or_else(|| "invalid".parse().expect("is a valid interface name")),
            ingress_mark: ingress_mark(&mut check, &raw.ingress_tag),
            told_accepted: rate(
                &mut check,
                ("iptables_accepted_udp_logs_per_sec", raw.iptables_accepted_udp_logs_per_sec),
                100,
            )
            .filter(|_| raw.iptables_c2c_logging),
            lines_per_second: rate(
                &mut check,
                ("iptables_denied_logs_per_sec", raw.iptables_denied_logs_per_sec),
                1,
            )
            .unwrap_or(NonZeroU32::MIN),
            state_file: optional(&raw.state_file),
            shadow: raw.shadow,
            iptables_lock_file: optional(&raw.iptables_lock_file),
            enable_groups: raw.enable_asg_syncing,
            groups_poll_interval: check.seconds("asg_poll_interval", raw.asg_poll_interval, 60, 1),
            groups: Manner {
                deny: deny_networks(&mut check, &raw.deny_networks),
                vtep_port: vtep_port(&mut check, raw.vtep_port),
            },
            admin_address: check.address(
                ("force_policy_poll_cycle_host", &raw.force_policy_poll_cycle_host),
                ("force_policy_poll_cycle_port", raw.force_policy_poll_cycle_port),
                SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 8722),
            ),
            log_level: check.log_level("log_level", &raw.log_level),
        };
        if config.shadow.any() && config.state_file.is_none() {
            check.fault("shadow", "needs state_file, beside which is remembered what was promoted");
        }
        if config.shadow.security_groups && !config.enable_groups {
            check.fault("shadow", "security_groups can be watched only with enable_asg_syncing");
        }
        check.finish()?;
        Ok(config)
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

/// The kernel counts no more than 10,000 a second.
fn rate(check: &mut Check, (key, value): (&str, Option<i64>), default: u32) -> Option<NonZeroU32> {
    let rate = u32::try_from(value.unwrap_or(default.into())).ok();
    let rate = rate.filter(|rate| *rate <= 10_000).and_then(NonZeroU32::new);
    if rate.is_none() {
        check.fault(key, "must be from 1 to 10000 a second");
    }
    rate
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

fn deny_networks(check: &mut Check, raw: &RawDenyNetworks) -> DenyNetworks {
    let mut nets = |key: &str, texts: &Option<Vec<String>>| {
        let texts = texts.iter().flatten();
        let net = |text: &String| check.parsed(key, text, "a network such as 10.0.0.0/8");
        texts.filter_map(net).map(|net: Ipv4Net| net.trunc()).collect()
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

fn optional(path: &str) -> Option<PathBuf> {
    (!path.is_empty()).then(|| path.into())
}

fn host_name() -> String {
    nix::unistd::gethostname()
        .map_or_else(|_| "unknown".to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<Config, String> {
        let raw = gocompat::json::from_slice(json.as_bytes()).unwrap();
        Config::check(raw).map_err(|error| error.to_string())
    }

    #[test]
    fn every_mistake_is_listed_at_once() {
        let error = check(
            r#"{"policy_server_url":"http://x","ca_cert_file":"/none","vtep_name":"a/b","ingress_tag":"ffff0001",
                "force_policy_poll_cycle_port":70000,"poll_interval":-1,"log_level":"loud","backend":"ebtables"}"#,
        )
        .unwrap_err();
        let faults: Vec<_> = error.lines().skip(1).map(str::trim).collect();
        assert_eq!(
            faults,
            [
                "policy_server_url: \"http://x\" does not begin with https://",
                "ca_cert_file: \"/none\" cannot be read: No such file or directory (os error 2)",
                "client_cert_file: is missing",
                "client_key_file: is missing",
                "vtep_name: \"a/b\" is not the name of an interface",
                "backend: \"ebtables\" is not auto, iptables or nftables",
                "poll_interval: must be at least 1 seconds",
                "cni_datastore_path: is missing",
                "subnet_file: is missing",
                "ingress_tag: \"ffff0001\" is not a mark such as ffff0000, hexadecimal and ending in 0000",
                "force_policy_poll_cycle_port: 70000 is not a port",
                "log_level: \"loud\" is not debug, info, warn, error or fatal",
            ]
        );
    }

    #[test]
    fn defaults_are_the_predecessors() {
        let config = check(
            r#"{"policy_server_url":"https://ps:4003","ca_cert_file":"/dev/null",
                "client_cert_file":"/dev/null","client_key_file":"/dev/null",
                "cni_datastore_path":"/s","subnet_file":"/e","iptables_lock_file":null}"#,
        )
        .unwrap();
        assert_eq!(config.server.urls, ["https://ps:4003"]);
        assert_eq!(config.backend, Backend::Iptables);
        assert_eq!(config.vtep.as_str(), "silk-vtep");
        assert_eq!(config.poll_interval, Duration::from_secs(5));
        assert_eq!(config.admin_address.to_string(), "127.0.0.1:8722");
        assert_eq!(config.state_file, None);
        assert!(!config.enable_groups);
        assert_eq!(config.groups_poll_interval, Duration::from_secs(60));
        assert_eq!(config.groups.vtep_port.get(), 4789);
    }

    /// All keys the predecessor's file has (spec/cell.md §D.1), and ours for what it has not.
    #[test]
    fn the_predecessors_file_is_accepted_whole() {
        let text = r#"{"poll_interval":5,"enable_asg_syncing":true,"asg_poll_interval":30,"cni_datastore_path":"/s",
            "policy_server_url":"https://ps:4003","vni":1,"metron_address":"127.0.0.1:3457",
            "ca_cert_file":"/dev/null","client_cert_file":"/dev/null","client_key_file":"/dev/null",
            "client_timeout_seconds":5,"iptables_lock_file":"/l","debug_server_host":"127.0.0.1",
            "debug_server_port":8721,"log_level":"info","log_prefix":"cfnetworking","iptables_c2c_logging":false,
            "iptables_asg_logging":true,"iptables_denied_logs_per_sec":1,
            "deny_networks":{"always":["169.254.0.0/16"],"running":null,"staging":["10.1.2.3/8"]},
            "outbound_connections":{"limit":true,"logging":false,"burst":1000,"rate_per_sec":100},
            "iptables_accepted_udp_logs_per_sec":100,"enable_overlay_ingress_rules":true,
            "force_policy_poll_cycle_host":"127.0.0.1","force_policy_poll_cycle_port":8722,
            "disable_container_network_policy":false,"overlay_network":"10.255.0.0/16","underlay_ips":["10.0.16.14"],
            "loggregator":{"loggregator_use_v2_api":false},"subnet_file":"/e","vtep_port":8472}"#;
        let config = check(text).unwrap();
        assert!(config.enable_groups);
        assert_eq!(config.groups_poll_interval, Duration::from_secs(30));
        let DenyNetworks { always, running, staging } = config.groups.deny;
        assert_eq!(always, ["169.254.0.0/16".parse::<Ipv4Net>().unwrap()]);
        assert_eq!(running, []);
        assert_eq!(staging, ["10.0.0.0/8".parse::<Ipv4Net>().unwrap()]);
        assert_eq!(config.groups.vtep_port.get(), 8472);
        let error = check(&text.replace("169.254.0.0/16", "169.254")).unwrap_err();
        let fault = "deny_networks.always: \"169.254\" is not a network such as 10.0.0.0/8";
        assert!(error.contains(fault), "{error}");
    }

    #[test]
    fn groups_that_are_left_to_the_networker_cannot_be_watched() {
        let fault = "shadow: security_groups can be watched only with enable_asg_syncing";
        let shadow = r#""shadow":{"security_groups":true},"state_file":"/s""#;
        let refused = |text: &str| match check(text) {
            Err(error) => error.contains(fault),
            Ok(_) => false,
        };
        assert!(refused(&format!("{{{shadow}}}")));
        assert!(!refused(&format!("{{{shadow},\"enable_asg_syncing\":true}}")));
    }

    #[test]
    fn several_servers_may_be_named_and_each_is_asked_once() {
        let file = |urls: &str| {
            format!(
                r#"{{{urls},"ca_cert_file":"/dev/null","client_cert_file":"/dev/null",
                "client_key_file":"/dev/null","cni_datastore_path":"/s","subnet_file":"/e"}}"#
            )
        };
        let urls = |text: &str| check(&file(text)).map(|config| config.server.urls);
        let two = r#""policy_server_urls":["https://a:4003","https://b:4003"]"#;
        assert_eq!(urls(two).unwrap(), ["https://a:4003", "https://b:4003"]);
        let three = format!(r#""policy_server_url":"https://b:4003",{two}"#);
        assert_eq!(urls(&three).unwrap(), ["https://b:4003", "https://a:4003"]);
        let error = urls(r#""policy_server_urls":["https://a:4003","b:4003"]"#).unwrap_err();
        let fault = "policy_server_urls: \"b:4003\" does not begin with https://";
        assert!(error.contains(fault), "{error}");
    }
}
