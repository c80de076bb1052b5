//! What CNI plugins do, and fail at.

use std::fs;

use serde_json::{Value, json};

use crate::cell::{Cell, Process};

#[test]
fn a_chain_whose_second_plugin_fails_leaves_nothing() {
    let (cell, container) = (Cell::new(), Process::start());
    cell.script(
        "broken",
        r#"[ $CNI_COMMAND = DEL ] || { echo '{"code":7,"msg":"no luck"}'; exit 1; }"#,
    );
    cell.use_plugins(&["broken"]);
    assert_eq!(
        cell.up("web", &container).complaint(),
        "cell: cni up: CNI plugin \"broken\" failed to ADD: no luck (code 7)\n"
    );
    cell.is_bare();
    let links = container.netns().run(|| fs::read_to_string("/proc/thread-self/net/dev"));
    assert!(!links.unwrap().unwrap().contains("eth0"), "the container has its link still");
}

#[test]
fn a_container_no_link_of_the_host_leads_to_is_refused() {
    let (cell, container) = (Cell::new(), Process::start());
    let result = r#"{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[{"address":"10.255.30.2/24","interface":0}]}"#;
    cell.script("macvlan", &format!("[ $CNI_COMMAND = DEL ] || echo '{result}'"));
    cell.use_plugins(&["macvlan"]);
    let up = cell.up("web", &container);
    assert!(up.complaint().contains("the firewall would not see its packets"), "{up:?}");
    cell.is_bare();
}

#[test]
fn a_plugin_that_hangs_is_killed_and_leaves_nothing() {
    let (mut cell, container) = (Cell::new(), Process::start());
    cell.script("asleep", "[ $CNI_COMMAND = DEL ] || sleep 600");
    cell.use_plugins(&["asleep"]);
    cell.configure("cni_timeout_seconds", 1);
    let up = cell.up("web", &container);
    assert!(up.complaint().contains("did not finish ADD within 1s"), "{up:?}");
    cell.is_bare();
}

#[test]
fn a_cell_without_a_network_refuses_containers_and_gets_rid_of_them() {
    let (cell, container) = (Cell::new(), Process::start());
    cell.up("web", &container).answer();
    fs::remove_file(cell.path("conf/10-net.conflist")).unwrap();
    let up = cell.up("db", &container);
    assert!(up.complaint().contains("no CNI configuration"), "{up:?}");
    cell.down("db").warned("no CNI configuration");
    cell.down("web").fine();
    cell.is_bare();
}

#[test]
fn what_a_cni_wrapper_stands_around_is_run_and_its_keys_are_heeded() {
    let (mut cell, web) = (Cell::new(), Process::start());
    let list = cell.json("conf/10-net.conflist");
    let wrapper = json!({"type": "cni-wrapper-plugin", "delegate": list["plugins"][0],
        "datastore": cell.path("store/store.json"), "log_prefix": "theirs",
        "iptables_lock_file": cell.path("iptables.lock"), "instance_address": "10.0.16.15",
        "deny_networks": {"always": ["10.9.0.0/16"]}, "runtimeConfig": {}});
    let list = json!({"name": "cni-wrapper", "cniVersion": "1.0.0", "plugins": [wrapper]});
    fs::write(cell.path("conf/10-net.conflist"), list.to_string()).unwrap();
    for key in ["datastore", "iptables_lock_file", "instance_address"] {
        cell.configure(key, Value::Null);
    }
    let answer = cell.up("web", &web).answer();
    assert_eq!(answer["properties"]["garden.network.container-ip"], "10.255.30.2");
    cell.has_rule(
        "filter -A netout--web -d 10.9.0.0/16 -j REJECT --reject-with icmp-port-unreachable",
    );
    cell.has_rule("nat -A netin--web -d 10.0.16.15/32 -p tcp -m tcp --dport 61000 -j DNAT --to-destination 10.255.30.2:8080");
    assert_eq!(cell.stored(), ["web"]);
    assert!(cell.run("hop", "web", &Value::Null).complaint().starts_with("cell: "));
    cell.down("web").fine();
    cell.is_bare();
}
