use gocompat::json;
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// The example of spec/cell.md §A.3.
const UP: &str = r#"{"Pid": 48211,
 "Properties": {"app_id":"5c1d7a0e-6f0b-4c8e-9d5e-0c3b7f1a2e44","policy_group_id":"5c1d7a0e-6f0b-4c8e-9d5e-0c3b7f1a2e44",
   "ports":"8080","container_workload":"app","log_config":"{\"guid\":\"5c1d\",\"index\":0}"},
 "netout_rules": [
   {"protocol":1,"networks":[{"start":"11.0.0.0","end":"169.253.255.255"}],"ports":[{"start":80,"end":80},{"start":443,"end":443}],"log":true},
   {"protocol":3,"networks":[{"start":"0.0.0.0","end":"255.255.255.255"}],"icmps":{"type":8,"code":0}}],
 "netin": [{"host_port":0,"container_port":8080},{"host_port":0,"container_port":2222}]}"#;

fn up(text: &str) -> UpRequest {
    json::from_slice_prefix(text.as_bytes()).unwrap()
}

#[test]
fn an_up_request_is_read() {
    let request = up(UP);
    assert_eq!(request.pid, 48211);
    assert_eq!(request.properties["ports"], "8080");
    assert_eq!(request.netin[1], PortMapping { host_port: 0, container_port: 2222 });
    let [tcp, icmp] = &request.netout_rules[..] else { panic!("two rules were sent") };
    assert_eq!((tcp.protocol, tcp.log, tcp.ports.len()), (1, true, 2));
    assert_eq!(icmp.icmps, Some(IcmpControl { kind: 8, code: Some(0) }));
}

#[test]
fn an_up_request_of_2016_and_lower_case_keys_are_read() {
    assert_eq!(up(r#"{"pid":7,"properties":null,"extra":1}{"more"#).pid, 7);
    assert_eq!(up("null"), UpRequest::default());
}

#[test]
fn an_up_reply_reads_as_garden_expects() {
    let mapped = [MappedPort { host_port: 61000, container_port: 8080 }];
    let reply = UpReply {
        properties: ReplyProperties {
            container_ipv6: None,
            container_ip: "10.255.30.2".into(),
            host_ip: "255.255.255.255".into(),
            mapped_ports: json::to_string(&mapped),
            interface: Some("eth0".into()),
        },
        dns_servers: vec!["169.254.0.2".into()],
        search_domains: vec!["apps.internal".into()],
    };
    assert_eq!(
        json::to_string(&reply),
        r#"{"properties":{"garden.network.container-ip":"10.255.30.2","garden.network.host-ip":"255.255.255.255","garden.network.mapped-ports":"[{\"HostPort\":61000,\"ContainerPort\":8080}]","garden.network.interface":"eth0"},"dns_servers":["169.254.0.2"],"search_domains":["apps.internal"]}"#
    );
    let bare = json::to_string(&UpReply::default());
    assert!(!bare.contains("dns_servers") && !bare.contains("interface"), "{bare}");
}

#[test]
fn net_in_is_read_and_answered() {
    let text =
        r#"{"HostIP":"10.0.16.14","HostPort":0,"ContainerIp":"10.255.30.2","ContainerPort":8080}"#;
    let request: NetInRequest = json::from_slice_prefix(text.as_bytes()).unwrap();
    assert_eq!(request.host_ip, "10.0.16.14");
    assert_eq!((request.container_ip.as_str(), request.container_port), ("10.255.30.2", 8080));
    let reply = PortMapping { host_port: 60000, container_port: 8080 };
    assert_eq!(json::to_string(&reply), r#"{"host_port":60000,"container_port":8080}"#);
}

#[test]
fn net_out_and_bulk_net_out_are_read() {
    let one = br#"{"container_ip":"10.255.30.2","netout_rule":{"protocol":1,"networks":[{"start":"10.0.0.1","end":"10.0.0.1"}],"ports":[{"start":3306,"end":3306}]}}"#;
    let one: NetOutRequest = json::from_slice_prefix(one).unwrap();
    assert_eq!(one.netout_rule.ports, [PortRange { start: 3306, end: 3306 }]);
    let bulk = br#"{"container_ip":"10.255.30.2","netout_rules":[{"protocol":2,"networks":[{"start":"8.8.8.8","end":"8.8.8.8"}],"ports":[{"start":53,"end":53}]}]}"#;
    let bulk: BulkNetOutRequest = json::from_slice_prefix(bulk).unwrap();
    assert_eq!(bulk.netout_rules.len(), 1);
}

#[test]
fn rules_travel_on_in_gardens_own_shape() {
    let rules = up(UP).netout_rules;
    assert_eq!(
        serde_json::to_value(rules).unwrap(),
        json!([
            {"protocol":1,"networks":[{"start":"11.0.0.0","end":"169.253.255.255"}],"ports":[{"start":80,"end":80},{"start":443,"end":443}],"log":true},
            {"protocol":3,"networks":[{"start":"0.0.0.0","end":"255.255.255.255"}],"icmps":{"type":8,"code":0}}
        ])
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = json::from_slice_prefix::<UpRequest>(&bytes);
        let _ = json::from_slice_prefix::<NetInRequest>(&bytes);
        let _ = json::from_slice_prefix::<BulkNetOutRequest>(&bytes);
    }

    #[test]
    fn any_mangled_request_is_read_or_refused(at in 0..UP.len(), byte: u8) {
        let mut bytes = UP.as_bytes().to_vec();
        bytes[at] = byte;
        let _ = json::from_slice_prefix::<UpRequest>(&bytes);
    }
}
