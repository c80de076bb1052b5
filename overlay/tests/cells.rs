//! Whole cells in network namespaces of their own, with a controller in memory. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot set the scene says where")]

mod world;

use std::{fs, time::Duration};

use overlay::{OverlayError, TakeUpError};
use world::{Cell, Controller, eventually, lease};

#[test]
fn cells_reach_each_other_once_both_are_leased_and_no_longer_when_one_is_gone() {
    let controller = Controller::new();
    let (a, b) = Cell::pair();
    let _a = a.start(&controller);
    eventually("the first cell stands", || a.subnet().is_some());
    assert!(!a.reaches(&b.address()), "there is no second cell yet");

    let _b = b.start(&controller);
    eventually("the cells reach each other", || a.reaches(&b.base()) && b.reaches(&a.base()));
    assert!(!a.reaches("10.255.99.0"), "nobody has leased this block");

    controller.forget(&lease("10.0.16.15", "10.255.31.0/24"));
    eventually("the cell that is gone is cut off", || !a.routes().contains("10.255.31.0/24"));
    assert!(!a.reaches("10.255.31.0"));
}

#[test]
fn a_new_cell_is_known_at_once() {
    let controller = Controller::new();
    let (a, _b) = Cell::pair();
    let mut config = a.config();
    config.poll_interval = Duration::from_secs(3600);
    let _a = a.start_with(config, &controller);
    eventually("the cell stands", || a.subnet().is_some());
    controller.add(lease("10.0.16.99", "10.255.77.0/24"));
    eventually("the new cell has all its entries", || {
        a.routes().contains("10.255.77.0/24 via 10.255.77.0")
            && a.run("ip neigh show dev silk-vtep").contains("ee:ee:0a:ff:4d:00")
            && a.run("bridge fdb show dev silk-vtep").contains("dst 10.0.16.99")
    });
}

#[test]
fn stopping_leaves_everything_and_starting_again_disturbs_nothing() {
    let controller = Controller::new();
    let (a, _b) = Cell::pair();
    controller.add(lease("10.0.16.99", "10.255.77.0/24"));
    let running = a.start(&controller);
    eventually("the route stands", || a.routes().contains("10.255.77.0/24"));
    running.stop().unwrap();
    let seen = |cell: &Cell| {
        let link = cell.run("ip -o link show silk-vtep");
        (link, cell.routes(), fs::metadata(cell.subnet_file()).unwrap().modified().unwrap())
    };
    let before = seen(&a);
    assert!(before.1.contains("10.255.77.0/24"));

    controller.away(true);
    let running = a.start(&controller);
    eventually("the lease was tried", || controller.renewals() > 2);
    assert_eq!(seen(&a), before, "while the controller is away");
    controller.away(false);
    let renewals = controller.renewals();
    eventually("the lease was renewed", || controller.renewals() > renewals + 1);
    assert_eq!(seen(&a), before, "when it is back");
    running.stop().unwrap();
}

#[test]
fn a_controller_that_has_forgotten_the_cells_cuts_nobody_off_before_they_renew() {
    let controller = Controller::new();
    let (a, _b) = Cell::pair();
    let other = lease("10.0.16.99", "10.255.77.0/24");
    controller.add(other);
    let running = a.start(&controller);
    let stands = || a.routes().contains("10.255.77.0/24");
    eventually("the route stands", stands);

    controller.forget(&other);
    let renewals = controller.renewals();
    eventually("the cell has renewed", || controller.renewals() > renewals);
    assert!(stands(), "forgotten while running");

    running.stop().unwrap();
    let renewals = controller.renewals();
    let _a = a.start(&controller);
    eventually("the cell has renewed", || controller.renewals() > renewals + 1);
    assert!(stands(), "forgotten before the start");
    controller.add(other);
    eventually("later leases are learnt", || controller.renewals() > renewals + 5);
    assert!(stands(), "and remembered again");
}

#[test]
fn the_subnet_file_and_the_health_endpoint_say_what_plugins_need() {
    let controller = Controller::new();
    let (a, _b) = Cell::pair();
    let _a = a.start(&controller);
    eventually("the cell stands", || a.subnet().is_some());
    assert_eq!(
        fs::read_to_string(a.subnet_file()).unwrap(),
        "FLANNEL_NETWORK=10.255.0.0/16\nFLANNEL_SUBNET=10.255.30.1/24\n\
         FLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"
    );
    for path in ["/", "/any/path"] {
        eventually("the endpoint answers", || {
            a.get(path).is_some_and(|answer| {
                answer.starts_with("HTTP/1.1 200 OK")
                    && answer.ends_with(r#"{"overlay_subnet":"10.255.30.0/24","mtu":1450}"#)
            })
        });
    }
    assert_eq!(a.run("cat /proc/sys/net/ipv4/ip_forward").trim(), "1");
    let address = a.run("ip -o addr show dev silk-vtep");
    assert!(address.contains("inet 10.255.30.0/16 scope link"), "{address}");
}

#[test]
fn what_others_break_is_repaired_and_what_is_theirs_is_left() {
    let controller = Controller::new();
    let (a, _b) = Cell::pair();
    controller.add(lease("10.0.16.99", "10.255.77.0/24"));
    let _a = a.start(&controller);
    let whole = || {
        a.routes().contains("10.255.77.0/24 via 10.255.77.0")
            && a.run("bridge fdb show dev silk-vtep").contains("dst 10.0.16.99")
    };
    eventually("the entries stand", whole);
    a.run("ip route add 192.0.2.0/24 via 10.0.16.15 dev eth0");
    a.run("ip route del 10.255.77.0/24");
    a.run("bridge fdb replace ee:ee:0a:ff:4d:00 dst 10.0.16.98 dev silk-vtep self permanent");
    a.run("ip neigh replace 10.255.88.0 lladdr ee:ee:0a:ff:58:00 dev silk-vtep nud permanent");
    eventually("the entries stand again", whole);
    eventually("what nobody leased is gone", || {
        !a.run("ip neigh show dev silk-vtep").contains("10.255.88.0 lladdr ee:ee:0a:ff:58:00 PERM")
    });
    assert!(a.run("ip route show").contains("192.0.2.0/24 via 10.0.16.15"), "not ours to remove");

    a.run("ip link del silk-vtep");
    eventually("the device stands again", || a.subnet().as_deref() == Some("10.255.30.0/16"));
    eventually("and its entries", whole);
}

#[test]
fn another_device_is_made_anew_only_where_no_container_uses_it() {
    let controller = Controller::new();
    let (a, _b) = Cell::pair();
    a.run("ip link add silk-vtep type vxlan id 7 dstport 4789 dev eth0");
    a.run("ip addr add 10.255.30.0/16 dev silk-vtep");
    let before = a.run("ip -o link show silk-vtep");
    a.store(r#"{"web":{"handle":"web","ip":"10.255.30.2","metadata":{}}}"#);
    let error = a.start(&controller).ended().unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, OverlayError::TakeUp(TakeUpError::InUse { containers: 1, .. })),
        "{text}"
    );
    for part in ["silk-vtep must be made anew", "its network identifier is 7, not 1", "GBP"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert_eq!(a.run("ip -o link show silk-vtep"), before, "and it is untouched");

    a.store("{");
    let error = a.start(&controller).ended().unwrap_err();
    assert!(matches!(error, OverlayError::TakeUp(TakeUpError::Unknown { .. })), "{error}");
    assert_eq!(a.run("ip -o link show silk-vtep"), before, "not knowing is not having none");

    a.store("{}");
    let _a = a.start(&controller);
    eventually("the device is ours", || {
        let link = a.run("ip -d link show silk-vtep");
        link.contains("vxlan id 1 ") && link.contains("gbp")
    });
}

#[test]
fn containers_are_not_given_other_addresses() {
    let controller = Controller::new();
    let (a, _b) = Cell::pair();
    a.store(r#"{"web":{"handle":"web","ip":"10.255.99.2","metadata":{}}}"#);
    let error = a.start(&controller).ended().unwrap_err();
    assert_eq!(
        error.to_string().split(": ").next().unwrap(),
        "this cell was leased 10.255.30.0/24, but its container web has the address 10.255.99.2"
    );
    assert_eq!(a.subnet(), None);
}

#[test]
fn a_lease_that_is_lost_ends_the_overlay_and_leaves_the_device() {
    let controller = Controller::new();
    let (a, _b) = Cell::pair();
    let running = a.start(&controller);
    eventually("the cell stands", || a.subnet().is_some());
    controller.refuse(true);
    let error = running.ended().unwrap_err();
    assert!(matches!(error, OverlayError::LeaseLost(_)), "{error}");
    assert!(a.subnet().is_some());

    a.store(r#"{"web":{"handle":"web","ip":"10.255.30.2","metadata":{}}}"#);
    let error = a.start(&controller).ended().unwrap_err();
    assert!(matches!(error, OverlayError::TakeUp(TakeUpError::InUse { .. })), "{error}");
}

#[test]
fn a_controller_that_is_away_is_tolerated_for_a_time() {
    let controller = Controller::new();
    let (a, _b) = Cell::pair();
    let mut config = a.config();
    config.partition_tolerance = Duration::from_secs(4);
    let running = a.start_with(config, &controller);
    eventually("the cell stands", || a.subnet().is_some());
    controller.away(true);
    let renewals = controller.renewals();
    eventually("renewals fail and are tolerated", || controller.renewals() >= renewals + 2);
    let error = running.ended().unwrap_err();
    assert!(matches!(error, OverlayError::Partitioned { .. }), "{error}");
    assert!(a.subnet().is_some(), "the data plane stays");
}

#[test]
fn a_controller_that_starts_later_is_waited_for() {
    let controller = Controller::new();
    controller.away(true);
    let (a, _b) = Cell::pair();
    let _a = a.start(&controller);
    eventually("a lease was asked for", || controller.acquisitions() > 0);
    assert_eq!(a.subnet(), None);
    controller.away(false);
    eventually("the cell stands", || a.subnet().is_some());
}
