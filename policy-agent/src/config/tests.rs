use ipnet::IpNet;
use netfilter::egress::{DenyNetworks, Outbound};

use super::*;

fn check(json: &str) -> Result<Config, String> {
    let raw = gocompat::json::from_slice(json.as_bytes()).unwrap();
    Config::check(&raw).map_err(|error| error.to_string())
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
            "subnet_file: is missing, and so is overlay_network",
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
    assert_eq!(config.egress.vtep_port.get(), 4789);
}

/// All keys of the predecessor's file (spec/cell.md §D.1), as BOSH renders them, and none besides.
pub(super) const BOSH: &str = r#"{
    "poll_interval": 5,
    "enable_asg_syncing": true,
    "asg_poll_interval": 60,
    "cni_datastore_path": "/var/vcap/data/container-metadata/store.json",
    "policy_server_url": "https://policy-server.service.cf.internal:4003",
    "vni": 1,
    "metron_address": "127.0.0.1:3457",
    "ca_cert_file": "/dev/null",
    "client_cert_file": "/dev/null",
    "client_key_file": "/dev/null",
    "client_timeout_seconds": 5,
    "iptables_lock_file": "/var/vcap/data/garden-cni/iptables.lock",
    "debug_server_host": "127.0.0.1",
    "debug_server_port": 8721,
    "log_level": "info",
    "log_prefix": "cfnetworking",
    "iptables_c2c_logging": false,
    "iptables_asg_logging": true,
    "iptables_denied_logs_per_sec": 2,
    "iptables_accepted_udp_logs_per_sec": 100,
    "deny_networks": {"always": ["169.254.0.0/16"], "running": null, "staging": ["10.1.2.3/8"]},
    "outbound_connections": {"limit": true, "logging": false, "burst": 1000, "rate_per_sec": 100},
    "enable_overlay_ingress_rules": true,
    "force_policy_poll_cycle_host": "127.0.0.1",
    "force_policy_poll_cycle_port": 8722,
    "disable_container_network_policy": false,
    "overlay_network": "10.255.0.0/16",
    "underlay_ips": ["10.0.16.14"],
    "loggregator": {"loggregator_use_v2_api": false, "loggregator_api_port": 3458}
}"#;

#[test]
fn the_predecessors_file_is_accepted_whole_and_unchanged() {
    let config = check(BOSH).unwrap();
    let overlay = "10.255.0.0/16".parse().unwrap();
    let vtep = "silk-vtep".parse().unwrap();
    assert_eq!(config.subnet, subnet::Source::Device { vtep, overlay });
    assert_eq!(config.debug_address.unwrap().to_string(), "127.0.0.1:8721");
    assert!(config.enable_groups && !config.tells_accepted && !config.policies_disabled);
    let Manner { deny, vtep_port, told, denied_per_second, accepted_per_second, outbound } =
        config.egress;
    let DenyNetworks { always, running, staging } = deny;
    assert_eq!(always, ["169.254.0.0/16".parse::<IpNet>().unwrap()]);
    assert_eq!(running, []);
    assert_eq!(staging, ["10.0.0.0/8".parse::<IpNet>().unwrap()]);
    assert_eq!(vtep_port.get(), 4789);
    assert!(told);
    assert_eq!((denied_per_second.get(), accepted_per_second.get()), (2, 100));
    let Outbound { limit, logging, dry_run } = outbound.unwrap();
    assert_eq!((limit.per_second.get(), limit.burst.get()), (100, 1000));
    assert!(!logging && !dry_run);
}

/// The file at a path with this text, which is good but for what nobody reads.
fn strays(text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.json");
    std::fs::write(&path, text).unwrap();
    Config::load(&path).unwrap().strays.iter().map(ToString::to_string).collect()
}

#[test]
fn of_keys_the_predecessors_have_not_a_word_is_said() {
    assert_eq!(strays(BOSH), [""; 0]);
    let of_2016 = r#"{"poll_interval":5,"cni_datastore_path":"/s","policy_server_url":"https://ps:4003","vni":1,
        "flannel_subnet_file":"/var/vcap/data/flannel/subnet.env","metron_address":"127.0.0.1:3457",
        "ca_cert_file":"/dev/null","client_cert_file":"/dev/null","client_key_file":"/dev/null"}"#;
    assert_eq!(strays(of_2016), [""; 0]);
    let file = "/var/vcap/data/flannel/subnet.env".into();
    assert_eq!(check(of_2016).unwrap().subnet, subnet::Source::File(file));
}

#[test]
fn misspelt_keys_are_told_with_those_that_were_meant() {
    let keys = r#"{"backened":"nftables","statefile":"/s","shadow":{"removal":true},"#;
    let told = strays(&BOSH.replacen('{', keys, 1)).join("\n");
    for (key, meant) in [
        ("backened", "backend"),
        ("statefile", "state_file"),
        ("shadow.removal", "shadow.removals"),
    ] {
        let line = format!("`{key}` is no key of this file; did you mean `{meant}`?");
        assert!(told.contains(&line), "{told}");
    }
}

#[test]
fn what_is_wrong_in_the_predecessors_file_is_named() {
    for (right, wrong, fault) in [
        (
            "169.254.0.0/16",
            "169.254",
            "deny_networks.always: \"169.254\" is not a network such as 10.0.0.0/8",
        ),
        (
            "10.255.0.0/16",
            "10.255",
            "overlay_network: \"10.255\" is not a network such as 10.255.0.0/16",
        ),
        (": 1000", ": 0", "outbound_connections.burst: must be from 1 to 10000 a second"),
        (": 8721", ": 87210", "debug_server_port: 87210 is not a port"),
    ] {
        let error = check(&BOSH.replacen(right, wrong, 1)).unwrap_err();
        assert!(error.contains(fault), "{error}");
    }
}

#[test]
fn a_subnet_file_comes_before_the_device_and_nobody_debugs_unasked() {
    let text = BOSH.replacen('{', r#"{"subnet_file":"/e","vtep_port":8472,"#, 1);
    let text = text.replace("debug_server", "no_debug_server");
    let config = check(&text).unwrap();
    assert_eq!(config.subnet, subnet::Source::File("/e".into()));
    assert_eq!(config.egress.vtep_port.get(), 8472);
    assert_eq!(config.debug_address, None);
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

#[test]
fn second_addresses_are_for_who_asks_for_them_and_says_where() {
    let second = |more: &str| {
        check(&BOSH.replacen('{', &format!("{{{more},"), 1)).map(|config| config.second_network)
    };
    let network = r#""container_network_v6":"fd00:255::1/48""#;
    assert_eq!(second(network), Ok(None));
    let both = second(&format!(r#""dual_stack":true,{network}"#));
    assert_eq!(both, Ok(Some("fd00:255::/48".parse().unwrap())));
    for (more, fault) in [
        (r#""dual_stack":true"#, "container_network_v6: "),
        (r#""dual_stack":true,"container_network_v6":"10.0.0.0/8""#, "is not a network such as"),
    ] {
        let error = second(more).unwrap_err();
        assert!(error.contains(fault), "{error}");
    }
}
