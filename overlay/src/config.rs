//! The configuration file, with the key names silk-daemon has (spec/cell.md §E.3).

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use ipnet::Ipv4Net;
use policy_client::internal::Settings;
use serde::Deserialize;
use service::config::{Check, Faults};

/// VXLAN network identifiers have 24 bits.
const HIGHEST_VNI: i64 = (1 << 24) - 1;

/// The kernel's limit for names of devices.
const LONGEST_LINK_NAME: usize = 15;

/// Keys of silk-daemon's file that say nothing to us.
pub const FOR_OTHERS: [&str; 5] =
    ["vxlan_interface_name", "debug_server_port", "metron_port", "log_prefix", "single_ip_only"];

/// The file as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "`Config` says what each key means")]
pub struct File {
    pub connectivity_server_url: String,
    pub policy_server_urls: Vec<String>,
    pub ca_cert_file: String,
    pub client_cert_file: String,
    pub client_key_file: String,
    pub underlay_ip: String,
    pub overlay_network: String,
    pub subnet_prefix_length: Option<i64>,
    pub vtep_name: String,
    pub vni: Option<i64>,
    pub vtep_port: Option<i64>,
    pub subnet_file: String,
    pub datastore: String,
    pub poll_interval: Option<i64>,
    pub client_timeout_seconds: Option<i64>,
    pub partition_tolerance_seconds: Option<i64>,
    pub health_check_port: Option<i64>,
    pub log_level: String,
}

/// What the daemon works with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where leases come from, and how to prove who asks.
    pub controller: Settings,
    /// This cell's address under the overlay; leases are kept by it.
    pub underlay_ip: Ipv4Addr,
    /// The whole overlay.
    pub overlay_network: Ipv4Net,
    /// How large a cell's block is; all cells and the controller agree on it.
    pub subnet_prefix_length: u8,
    /// Name of the VXLAN device.
    pub vtep_name: String,
    /// Its network identifier; the same on all cells.
    pub vni: u32,
    /// Its UDP port; the same on all cells.
    pub vtep_port: u16,
    /// Where CNI plugins look for the block.
    pub subnet_file: PathBuf,
    /// The container store. Containers in it keep their addresses: while there are any, a device is
    /// not given another block. Without a store this cell is taken to have no containers.
    pub datastore: Option<PathBuf>,
    /// How often the lease is renewed and the kernel looked at.
    pub poll_interval: Duration,
    /// How long the controller may be away before the lease must be taken for lost.
    pub partition_tolerance: Duration,
    /// Port of the health endpoint on loopback; `None` for none.
    pub health_check_port: Option<u16>,
}

impl Config {
    /// Checks the file; a refusal lists every mistake.
    pub fn check(file: &File) -> Result<Self, Faults> {
        let mut check = Check::new();
        let overlay_network = overlay_network(&mut check, &file.overlay_network);
        let config = Self {
            controller: Settings {
                urls: check.https_urls(
                    ("connectivity_server_url", &file.connectivity_server_url),
                    ("policy_server_urls", &file.policy_server_urls),
                ),
                ca_cert_file: check.readable("ca_cert_file", &file.ca_cert_file),
                client_cert_file: check.readable("client_cert_file", &file.client_cert_file),
                client_key_file: check.readable("client_key_file", &file.client_key_file),
                timeout: check.seconds("client_timeout_seconds", file.client_timeout_seconds, 5, 1),
                cell: None,
            },
            underlay_ip: check
                .parsed("underlay_ip", &file.underlay_ip, "an IPv4 address")
                .unwrap_or(Ipv4Addr::UNSPECIFIED),
            overlay_network,
            subnet_prefix_length: block(&mut check, file.subnet_prefix_length, overlay_network),
            vtep_name: link_name(&mut check, &file.vtep_name),
            vni: vni(&mut check, file.vni.unwrap_or(1)),
            vtep_port: port(&mut check, "vtep_port", file.vtep_port.unwrap_or(4789)),
            subnet_file: check.path("subnet_file", &file.subnet_file),
            datastore: (!file.datastore.is_empty()).then(|| file.datastore.clone().into()),
            poll_interval: check.seconds("poll_interval", file.poll_interval, 30, 1),
            partition_tolerance: check.seconds(
                "partition_tolerance_seconds",
                file.partition_tolerance_seconds,
                604_800,
                1,
            ),
            health_check_port: match file.health_check_port {
                Some(0) => None,
                given => Some(port(&mut check, "health_check_port", given.unwrap_or(23_954))),
            },
        };
        check.log_level("log_level", &file.log_level);
        check.finish()?;
        Ok(config)
    }
}

fn overlay_network(check: &mut Check, text: &str) -> Ipv4Net {
    let network: Option<Ipv4Net> =
        check.parsed("overlay_network", text, "an IPv4 network such as 10.255.0.0/16");
    match network {
        Some(network) if network.addr() != network.network() => {
            let meant = network.trunc();
            check.fault("overlay_network", format_args!("{text:?} has host bits: meant {meant}?"));
            network
        }
        network => network.unwrap_or_default(),
    }
}

fn block(check: &mut Check, given: Option<i64>, overlay: Ipv4Net) -> u8 {
    let length = given.unwrap_or(24);
    match u8::try_from(length) {
        Ok(length) if length > overlay.prefix_len() && length <= 30 => length,
        _ => {
            let least = overlay.prefix_len() + 1;
            let what = format_args!("{length} is not between {least} and 30, inside {overlay}");
            check.fault("subnet_prefix_length", what);
            24
        }
    }
}

fn link_name(check: &mut Check, given: &str) -> String {
    let name = if given.is_empty() { "silk-vtep" } else { given };
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace();
    if name.len() > LONGEST_LINK_NAME || name.contains(odd) || matches!(name, "." | "..") {
        check.fault(
            "vtep_name",
            format_args!("{name:?} is no name for a device (at most 15 bytes)"),
        );
    }
    name.to_owned()
}

fn vni(check: &mut Check, given: i64) -> u32 {
    match u32::try_from(given) {
        Ok(vni) if given <= HIGHEST_VNI => vni,
        _ => {
            check.fault("vni", format_args!("{given} is not between 0 and {HIGHEST_VNI}"));
            1
        }
    }
}

fn port(check: &mut Check, key: &str, given: i64) -> u16 {
    let port = check.port(key, given);
    if port == Some(0) {
        check.fault(key, "0 is not a port");
    }
    port.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(certificates: &str) -> File {
        File {
            connectivity_server_url: "https://10.0.16.1:4003".into(),
            ca_cert_file: certificates.into(),
            client_cert_file: certificates.into(),
            client_key_file: certificates.into(),
            underlay_ip: "10.0.16.14".into(),
            overlay_network: "10.255.0.0/16".into(),
            subnet_file: "/run/netman/subnet.env".into(),
            ..File::default()
        }
    }

    #[test]
    fn what_is_left_out_is_what_everybody_uses() {
        let config = Config::check(&file("/dev/null")).unwrap();
        assert_eq!((config.vni, config.vtep_port, config.subnet_prefix_length), (1, 4789, 24));
        assert_eq!(config.controller.urls, ["https://10.0.16.1:4003"]);
        assert_eq!(config.vtep_name, "silk-vtep");
        assert_eq!(config.poll_interval, Duration::from_secs(30));
        assert_eq!(config.partition_tolerance, Duration::from_secs(604_800));
        assert_eq!((config.health_check_port, config.datastore), (Some(23_954), None));
        let more = vec!["https://10.0.16.2:4003".into()];
        let two = File { policy_server_urls: more, ..file("/dev/null") };
        assert_eq!(Config::check(&two).unwrap().controller.urls.len(), 2);
        let quiet = File { health_check_port: Some(0), ..file("/dev/null") };
        assert_eq!(Config::check(&quiet).unwrap().health_check_port, None);
    }

    #[test]
    fn every_mistake_is_shown_at_once() {
        let file = File {
            connectivity_server_url: String::new(),
            underlay_ip: "10.0.16".into(),
            overlay_network: "10.255.3.0/16".into(),
            subnet_prefix_length: Some(16),
            vtep_name: "a name that is long".into(),
            vni: Some(1 << 24),
            vtep_port: Some(0),
            subnet_file: String::new(),
            poll_interval: Some(-1),
            health_check_port: Some(70_000),
            ..file("/does/not/exist")
        };
        let missing = "\"/does/not/exist\" cannot be read: No such file or directory (os error 2)";
        assert_eq!(
            Config::check(&file).unwrap_err().to_string().lines().collect::<Vec<_>>(),
            [
                "invalid config",
                "  overlay_network: \"10.255.3.0/16\" has host bits: meant 10.255.0.0/16?",
                "  connectivity_server_url: is missing",
                &format!("  ca_cert_file: {missing}"),
                &format!("  client_cert_file: {missing}"),
                &format!("  client_key_file: {missing}"),
                "  underlay_ip: \"10.0.16\" is not an IPv4 address",
                "  subnet_prefix_length: 16 is not between 17 and 30, inside 10.255.3.0/16",
                "  vtep_name: \"a name that is long\" is no name for a device (at most 15 bytes)",
                "  vni: 16777216 is not between 0 and 16777215",
                "  vtep_port: 0 is not a port",
                "  subnet_file: is missing",
                "  poll_interval: must be at least 1 seconds",
                "  health_check_port: 70000 is not a port",
            ]
        );
    }
}
