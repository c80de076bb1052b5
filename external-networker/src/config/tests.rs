use super::*;

pub(super) const MINIMAL: &str = r#"{"cni_plugin_dir":"/usr/lib/cni","cni_config_dir":"/etc/cni",
    "bind_mount_dir":"/run/netns","state_file":"/var/state.json","start_port":61000,"total_ports":5000,
    "datastore":"/var/store.json","iptables_lock_file":"/run/lock","overlay_network":"10.255.0.0/16",
    "instance_address":"10.0.16.14","underlay_interfaces":["eth0"]}"#;

fn check(text: &str) -> Result<Config, String> {
    Config::check(&json::from_slice(text.as_bytes()).unwrap()).map_err(|error| error.to_string())
}

#[test]
fn what_may_be_missing_has_defaults() {
    let config = check(MINIMAL).unwrap();
    assert_eq!(config.log_prefix, "cfnetworking");
    assert_eq!(config.agent, None);
    assert_eq!(config.cni_limit, Duration::from_secs(60));
    assert_eq!(config.cell.vtep.as_str(), "silk-vtep");
    assert_eq!(config.cell.manner.vtep_port.get(), 4789);
    assert_eq!(config.cell.ingress_mark, 0xffff_0000);
    assert_eq!(config.ports.range, 61000..=65535);
}

#[test]
fn wrong_values_are_named_beside_each_other() {
    let wrong = MINIMAL.replace("10.0.16.14", "10.0.16").replace("eth0", "no interface").replace(
        "{",
        r#"{"dns_servers":["banana"],"ingress_tag":"0x1","vtep_port":70000,"host_tcp_services":["10.0.0.1"],
               "no_masquerade_cidr_range":"10","deny_networks":{"staging":["10.0.0.0"]},
               "outbound_connections":{"dry_run":true,"rate_per_sec":-1},"proxy_redirect_cidr":"10/8","proxy_port":-1,"#,
    );
    assert_eq!(
        check(&wrong).unwrap_err(),
        "config 'host_tcp_services' is \"10.0.0.1\", expected an IPv4 address and a port such as 10.0.0.1:80; \
         config 'instance_address' is \"10.0.16\", expected an IPv4 address; \
         config 'underlay_interfaces' is \"no interface\", expected the name of an interface; \
         config 'ingress_tag' is \"0x1\", expected hexadecimal digits that end in 0000; \
         invalid DNS server \"banana\", must be valid IP address; \
         config 'vtep_port' is 70000, expected a port; \
         config 'deny_networks.staging' is \"10.0.0.0\", expected a network such as 10.0.0.0/8; \
         config 'outbound_connections.rate_per_sec' is -1, expected 1 to 10000; \
         config 'no_masquerade_cidr_range' is \"10\", expected a network such as 10.255.0.0/16; \
         config 'proxy_redirect_cidr' is \"10/8\", expected a network such as 10.255.0.0/16; \
         config 'proxy_port' is -1, expected a port"
    );
}

#[test]
fn a_mark_that_could_be_an_apps_is_refused() {
    for (tag, good) in [("ffff0000", true), ("10000", true), ("0", false), ("ffff0001", false)] {
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
        "instance_address",
        "underlay_interfaces",
    ];
    let expected = keys.map(|key| format!("missing required config '{key}'")).join("; ");
    assert_eq!(check("{}").unwrap_err(), expected);
}

/// The keys of spec/cell.md §C.2 that are the networker's business, as BOSH writes them.
#[test]
fn the_wrappers_keys_are_the_networkers() {
    let wrapper = r#"{"datastore_file_owner":"vcap","datastore_file_group":"vcap",
        "no_masquerade_cidr_range":"10.0.0.0/8","dns_servers":["169.254.0.2"],
        "deny_networks":{"always":["10.9.0.0/16"],"running":null,"staging":["10.1.2.3/8"]},
        "underlay_ips":["10.0.16.14"],"temporary_underlay_interface_names":[],
        "iptables_asg_logging":true,"iptables_c2c_logging":true,"iptables_denied_logs_per_sec":2,
        "iptables_accepted_udp_logs_per_sec":50,"ingress_tag":"ffff0000","vtep_name":"silk-vtep",
        "policy_agent_force_poll_address":"127.0.0.1:8722",
        "outbound_connections":{"limit":true,"logging":true,"burst":60,"rate_per_sec":30,"dry_run":false},"#;
    let minimal = MINIMAL.replace(r#","underlay_interfaces":["eth0"]"#, "");
    let config = check(&minimal.replacen('{', wrapper, 1)).unwrap();
    let Cell { manner, tell_of_overlay, unmasqueraded, underlay, .. } = config.cell;
    assert_eq!(unmasqueraded, Some("10.0.0.0/8".parse().unwrap()));
    assert_eq!(manner.deny.staging, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(manner.deny.running, []);
    assert!(manner.told && tell_of_overlay && underlay.is_empty());
    assert_eq!((manner.denied_per_second.get(), manner.accepted_per_second.get()), (2, 50));
    let outbound = manner.outbound.unwrap();
    assert_eq!((outbound.limit.per_second.get(), outbound.limit.burst.get()), (30, 60));
    assert!(outbound.logging && !outbound.dry_run);
    assert_eq!(config.surroundings.underlay, ["10.0.16.14".parse::<Ipv4Addr>().unwrap()]);
}

#[test]
fn a_limit_that_is_off_is_none_unless_it_is_tried() {
    let outbound = |text: &str| {
        let text = format!(r#"{{"outbound_connections":{{{text}}},"#);
        check(&MINIMAL.replacen('{', &text, 1)).unwrap().cell.manner.outbound
    };
    assert_eq!(outbound(r#""limit":false,"burst":1,"rate_per_sec":1"#), None);
    assert!(outbound(r#""dry_run":true"#).unwrap().dry_run);
    assert_eq!(outbound(r#""limit":true"#).unwrap().limit.burst.get(), 1000);
}

#[test]
fn a_second_network_is_for_those_who_ask_for_it_and_say_which() {
    let check = |more: &str| check(&MINIMAL.replacen('{', &format!("{{{more},"), 1));
    let network = r#""container_network_v6":"fd00:255::1/48""#;
    assert_eq!(check(network).unwrap().second_network, None);
    let on = format!(r#""dual_stack":true,{network}"#);
    assert_eq!(check(&on).unwrap().second_network, Some("fd00:255::/48".parse().unwrap()));
    let missing = check(r#""dual_stack":true"#).unwrap_err();
    assert_eq!(missing, "missing required config 'container_network_v6'");
    for key in ["allow_unfiltered_ipv6", "enable_ingress_proxy_redirect"] {
        let fault = check(&format!(r#"{on},"{key}":true"#)).unwrap_err();
        assert!(fault.contains(key) && fault.contains("'dual_stack'"), "{fault}");
    }
    let deny = check(r#""deny_networks":{"always":["fd00:ec2::254/128"]}"#).unwrap();
    assert_eq!(deny.cell.manner.deny.always, ["fd00:ec2::254/128".parse().unwrap()]);
}

#[test]
fn what_the_wrapper_is_told_counts_where_the_networker_is_told_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let wrapper = r#"{"name":"cni-wrapper","cniVersion":"1.0.0","plugins":[{"type":"cni-wrapper-plugin",
        "datastore":"/theirs","instance_address":"10.0.16.15","underlay_ips":["10.0.16.15"],
        "iptables_lock_file":"/theirs.lock","deny_networks":{"always":["10.9.0.0/16"]},
        "iptables_asg_logging":true,"policy_agent_force_poll_address":"127.0.0.1:8722",
        "datastore_file_owner":"vcap","datastore_file_group":"vcap","host_tcp_services":[],
        "metadata":{"a":"b"},"runtimeConfig":{"portMappings":[]},"delegate":{"type":"silk-cni"}}]}"#;
    std::fs::write(dir.path().join("30-cni-wrapper.conflist"), wrapper).unwrap();
    let load = |own: &str| {
        let path = dir.path().join("networker.json");
        let own = own.replace("DIR", dir.path().to_str().unwrap());
        std::fs::write(&path, own).unwrap();
        Config::load(&path)
    };
    let own = r#" {"cni_plugin_dir":"/p","cni_config_dir":"DIR","bind_mount_dir":"/n","state_file":"/s",
        "start_port":61000,"total_ports":5000,"Datastore":"/ours","overlay_network":"10.255.0.0/16",
        "proxy_uid":0,"proxy_port":15001,"log_prefix":"cfnetworking"}"#;
    let config = load(own).unwrap();
    assert_eq!(config.strays, []);
    assert_eq!(config.datastore, PathBuf::from("/ours"));
    assert_eq!(config.iptables_lock_file, PathBuf::from("/theirs.lock"));
    assert_eq!(config.cell.address.to_string(), "10.0.16.15");
    assert_eq!(config.cell.manner.deny.always, ["10.9.0.0/16".parse().unwrap()]);
    assert!(config.cell.manner.told);
    assert_eq!(config.agent.as_deref(), Some("127.0.0.1:8722"));
    let error = load(&own.replace("DIR", "/nowhere")).unwrap_err().to_string();
    assert!(error.contains("'instance_address'"), "{error}");
    let both = behind(&serde_json::from_str(r#"{"a":1}"#).unwrap(), b" { } ");
    assert_eq!(serde_json::from_slice::<Value>(&both).unwrap(), serde_json::json!({"a": 1}));
}
