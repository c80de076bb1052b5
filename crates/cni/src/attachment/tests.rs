use proptest::prelude::*;
use serde_json::json;

use super::*;

fn read(value: &Value) -> Attachment {
    Attachment::parse(value.to_string().as_bytes(), "1.0.0".parse().unwrap()).unwrap()
}

#[test]
fn a_result_of_1_0_0_is_read() {
    let attachment = read(&json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "veth1", "mac": "aa:bb:cc:00:00:01"},
                       {"name": "eth0", "mac": "aa:bb:cc:00:00:02", "sandbox": "/netns/web"}],
        "ips": [{"interface": 1, "address": "fd00::2/64"},
                {"interface": 1, "address": "10.255.30.2/24", "gateway": "10.255.30.1"}],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.0.0.0/8", "gw": "10.255.30.1"}],
        "dns": {"nameservers": ["169.254.0.2"]}
    }));
    let (ip, interface) = attachment.first_ipv4().unwrap();
    assert_eq!(ip, Ipv4Addr::new(10, 255, 30, 2));
    assert_eq!(interface.unwrap().name, "eth0");
    assert_eq!(attachment.first_ipv6(), Some("fd00::2".parse().unwrap()));
    let host: Vec<_> = attachment.host_interfaces().map(|i| i.name.as_str()).collect();
    assert_eq!(host, ["veth1"]);
    assert_eq!(attachment.routes[1].gateway, Some(Ipv4Addr::new(10, 255, 30, 1).into()));
    assert_eq!(attachment.dns.nameservers, ["169.254.0.2"]);
}

#[test]
fn a_result_of_0_3_1_states_families_we_need_not_be_told() {
    let attachment = read(&json!({
        "cniVersion": "0.3.1", "interfaces": null,
        "ips": [{"version": "4", "address": "10.1.2.3/32"}], "dns": {}
    }));
    assert_eq!(attachment.first_ipv4(), Some((Ipv4Addr::new(10, 1, 2, 3), None)));
    assert_eq!(attachment.first_ipv6(), None);
}

#[test]
fn a_result_of_0_2_0_has_one_address_a_family() {
    let attachment = read(&json!({
        "cniVersion": "0.2.0",
        "ip4": {"ip": "10.255.30.2/24", "gateway": "10.255.30.1", "routes": [{"dst": "0.0.0.0/0"}]},
        "dns": {}
    }));
    assert_eq!(attachment.first_ipv4(), Some((Ipv4Addr::new(10, 255, 30, 2), None)));
    assert_eq!(attachment.routes.len(), 1);
}

#[test]
fn a_result_without_a_version_is_in_the_one_asked_for() {
    let attachment = read(&json!({"ips": []}));
    assert_eq!(attachment.raw()["cniVersion"], "1.0.0");
    assert_eq!(attachment.first_ipv4(), None);
}

#[test]
fn faulty_results_are_refused_whole() {
    let refused = |value: Value| {
        Attachment::parse(value.to_string().as_bytes(), SpecVersion::FIRST).unwrap_err()
    };
    assert!(matches!(refused(json!({"cniVersion": "3.0.0"})), AttachmentError::Version(_)));
    assert!(matches!(refused(json!([])), AttachmentError::Decode(_)));
    let one_bad_address = json!({"cniVersion": "1.0.0",
        "ips": [{"address": "10.0.0.1/8"}, {"address": "10.0.0.300/8"}]});
    assert!(matches!(refused(one_bad_address), AttachmentError::Decode(_)));
    let elsewhere = json!({"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.1/8", "interface": 1}],
        "interfaces": [{"name": "eth0"}]});
    assert_eq!(
        refused(elsewhere).to_string(),
        "address 10.0.0.1/8 of the CNI result is on interface 1, of 1 listed"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Attachment::parse(&bytes, SpecVersion::FIRST);
    }

    #[test]
    fn any_mangled_result_is_read_or_refused(at in 0usize..200, byte: u8) {
        let mut text = br#"{"cniVersion":"1.0.0","interfaces":[{"name":"eth0"}],"ips":[{"interface":0,"address":"10.0.0.1/8"}],"routes":[{"dst":"0.0.0.0/0"}],"dns":{}}"#.to_vec();
        let at = at % text.len();
        text[at] = byte;
        if let Ok(attachment) = Attachment::parse(&text, SpecVersion::FIRST) {
            let _ = (attachment.first_ipv4(), attachment.first_ipv6());
        }
    }
}
