//! These need CAP_NET_ADMIN. Each makes a network namespace of its own on a throw-away thread, which
//! ends with it, and asks `ip` and `bridge` what they see.

use std::{process::Command, thread};

use nix::sched::{CloneFlags, unshare};

use super::*;

const MAC: Mac = [0xee, 0xee, 0x0a, 0xff, 0x1e, 0x00];
const PEER_MAC: Mac = [0xee, 0xee, 0x0a, 0xff, 0x1f, 0x00];

/// Does `work` in a new namespace with one cable, `eth0`, that has the address 10.0.16.14.
fn on_a_cell<Work: Future<Output = ()>>(work: impl FnOnce(Links) -> Work + Send + 'static) {
    let cell = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need CAP_SYS_ADMIN");
        ip("link add eth0 type veth peer name far0");
        ip("addr add 10.0.16.14/24 dev eth0");
        ip("link set eth0 up");
        ip("link set far0 up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { work(Links::open().unwrap()).await });
    });
    cell.join().unwrap();
}

fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

async fn vtep(links: &Links) -> Link {
    let underlay = links.with_address("10.0.16.14".parse().unwrap()).await.unwrap().unwrap();
    let vxlan = Vxlan {
        vni: 1,
        local: Some("10.0.16.14".parse().unwrap()),
        underlay: Some(underlay.index),
        port: 4789,
        learning: false,
        gbp: true,
    };
    links.create_vxlan(&NewVxlan { name: "silk-vtep", mac: MAC, vxlan }).await.unwrap()
}

/// The device standing in an overlay, so that gateways in it are reachable.
async fn standing_vtep(links: &Links) -> Link {
    let link = vtep(links).await;
    links.add_address(&link, "10.255.30.0/16".parse().unwrap()).await.unwrap();
    links.up(&link).await.unwrap();
    link
}

fn route(via: &str) -> Route {
    Route {
        destination: "10.255.31.0/24".parse().unwrap(),
        gateway: Some(via.parse().unwrap()),
        source: Some("10.255.30.0".parse().unwrap()),
        metric: 0,
    }
}

#[test]
fn a_vxlan_device_is_read_back_as_it_was_asked_for() {
    on_a_cell(|links| async move {
        let made = vtep(&links).await;
        assert_eq!(made.mac, Some(MAC));
        assert_eq!(made.mtu, 1450);
        assert!(!made.up);
        let vxlan = made.vxlan.unwrap();
        assert_eq!((vxlan.vni, vxlan.port, vxlan.learning, vxlan.gbp), (1, 4789, false, true));
        assert_eq!(vxlan.local, Some("10.0.16.14".parse().unwrap()));
        assert_eq!(links.find("silk-vtep").await.unwrap(), Some(made.clone()));
        assert_eq!(links.find("eth0").await.unwrap().unwrap().index, vxlan.underlay.unwrap());

        let seen = ip("-d link show silk-vtep");
        for part in ["vxlan id 1 ", "local 10.0.16.14", "dev eth0", "dstport 4789", "gbp"] {
            assert!(seen.contains(part), "no {part:?} in {seen}");
        }
        assert!(seen.contains("nolearning"), "{seen}");

        links.up(&made).await.unwrap();
        assert!(links.find("silk-vtep").await.unwrap().unwrap().up);
        links.delete(&made).await.unwrap();
        assert_eq!(links.find("silk-vtep").await.unwrap(), None);
        links.delete(&made).await.unwrap();
    });
}

#[test]
fn a_device_of_another_make_is_seen_for_what_it_is() {
    on_a_cell(|links| async move {
        ip("link add silk-vtep type vxlan id 7 dstport 8472 dev eth0");
        let found = links.find("silk-vtep").await.unwrap().unwrap();
        let vxlan = found.vxlan.unwrap();
        assert_eq!((vxlan.vni, vxlan.port, vxlan.learning, vxlan.gbp), (7, 8472, true, false));
        assert_eq!(vxlan.local, None);
        assert_eq!(links.find("eth0").await.unwrap().unwrap().vxlan, None);
    });
}

#[test]
fn a_name_that_is_taken_is_an_error_that_says_so() {
    on_a_cell(|links| async move {
        vtep(&links).await;
        let vxlan =
            Vxlan { vni: 2, local: None, underlay: None, port: 4790, learning: true, gbp: false };
        let device = NewVxlan { name: "silk-vtep", mac: MAC, vxlan };
        let error = links.create_vxlan(&device).await.unwrap_err();
        assert_eq!(error.to_string(), "making VXLAN device silk-vtep with id 2");
        let LinkError::Kernel { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.kind(), std::io::ErrorKind::AlreadyExists);
    });
}

#[test]
fn addresses_are_added_once_and_found_again() {
    on_a_cell(|links| async move {
        let link = vtep(&links).await;
        let address = "10.255.30.0/16".parse().unwrap();
        links.add_address(&link, address).await.unwrap();
        links.add_address(&link, address).await.unwrap();
        assert_eq!(links.addresses(&link).await.unwrap(), vec![address]);
        let seen = ip("-o addr show dev silk-vtep");
        assert!(seen.contains("inet 10.255.30.0/16 scope link silk-vtep"), "{seen}");
        assert_eq!(links.with_address(address.addr()).await.unwrap().unwrap().index, link.index);
        links.delete_address(&link, address).await.unwrap();
        links.delete_address(&link, address).await.unwrap();
        assert_eq!(links.addresses(&link).await.unwrap(), vec![]);
        assert_eq!(links.with_address("10.9.9.9".parse().unwrap()).await.unwrap(), None);
    });
}

#[test]
fn a_route_takes_the_place_of_another_and_goes_alone() {
    on_a_cell(|links| async move {
        let link = standing_vtep(&links).await;
        let connected = links.routes(&link).await.unwrap();
        assert_eq!(connected.len(), 1);
        assert_eq!(connected[0].gateway, None);
        let (old, new) = (route("10.255.31.9"), route("10.255.31.0"));
        for wanted in [old, new, new] {
            links.replace_route(&link, &wanted).await.unwrap();
            let routes = links.routes(&link).await.unwrap();
            assert_eq!(routes.len(), 2, "{routes:?}");
            assert!(routes.contains(&wanted), "{routes:?}");
        }
        let seen = ip("route show dev silk-vtep");
        assert!(seen.contains("10.255.31.0/24 via 10.255.31.0"), "{seen}");
        assert!(seen.contains("src 10.255.30.0"), "{seen}");

        links.delete_route(&link, &old).await.unwrap();
        assert!(links.routes(&link).await.unwrap().contains(&new), "another route was deleted");
        links.delete_route(&link, &new).await.unwrap();
        links.delete_route(&link, &new).await.unwrap();
        assert_eq!(links.routes(&link).await.unwrap(), connected);
    });
}

#[test]
fn routes_of_other_devices_and_metrics_are_told_apart() {
    on_a_cell(|links| async move {
        let link = standing_vtep(&links).await;
        ip("route add 10.9.0.0/16 via 10.0.16.1 dev eth0");
        ip("route add 10.255.31.0/24 via 10.255.31.0 dev silk-vtep src 10.255.30.0 metric 50");
        links.replace_route(&link, &route("10.255.31.0")).await.unwrap();
        let slow = Route { metric: 50, ..route("10.255.31.0") };
        let routes = links.routes(&link).await.unwrap();
        assert_eq!(routes.len(), 3, "{routes:?}");
        links.delete_route(&link, &slow).await.unwrap();
        assert!(links.routes(&link).await.unwrap().contains(&route("10.255.31.0")));
    });
}

#[test]
fn a_gateway_nobody_reaches_is_refused_with_the_whole_route() {
    on_a_cell(|links| async move {
        let link = standing_vtep(&links).await;
        let error = links.replace_route(&link, &route("192.0.2.1")).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "replacing route 10.255.31.0/24 via 192.0.2.1 src 10.255.30.0 on link silk-vtep"
        );
    });
}

#[test]
fn permanent_neighbours_are_replaced_listed_and_deleted() {
    on_a_cell(|links| async move {
        let link = standing_vtep(&links).await;
        let address = "10.255.31.0".parse().unwrap();
        let (old, new) = (Neighbour { address, mac: MAC }, Neighbour { address, mac: PEER_MAC });
        ip("neigh add 10.255.77.0 lladdr ee:ee:0a:ff:4d:00 dev silk-vtep nud stale");
        ip("neigh add 10.0.16.77 lladdr ee:ee:0a:ff:4d:00 dev eth0 nud permanent");
        for wanted in [old, new] {
            links.replace_neighbour(&link, &wanted).await.unwrap();
            assert_eq!(links.neighbours(&link).await.unwrap(), vec![wanted]);
        }
        let seen = ip("neigh show dev silk-vtep nud permanent");
        assert!(seen.contains("10.255.31.0 lladdr ee:ee:0a:ff:1f:00 PERMANENT"), "{seen}");
        links.delete_neighbour(&link, &new).await.unwrap();
        links.delete_neighbour(&link, &new).await.unwrap();
        assert_eq!(links.neighbours(&link).await.unwrap(), vec![]);
    });
}

#[test]
fn forwarding_entries_are_replaced_listed_and_deleted() {
    on_a_cell(|links| async move {
        let link = standing_vtep(&links).await;
        let to = |host: &str| FdbEntry { mac: PEER_MAC, host: host.parse().unwrap() };
        for wanted in [to("10.0.16.15"), to("10.0.16.16")] {
            links.replace_fdb(&link, &wanted).await.unwrap();
            assert_eq!(links.fdb(&link).await.unwrap(), vec![wanted]);
        }
        let seen = run("bridge", "fdb show dev silk-vtep");
        assert_eq!(seen.trim(), "ee:ee:0a:ff:1f:00 dst 10.0.16.16 self permanent");
        links.delete_fdb(&link, &to("10.0.16.15")).await.unwrap();
        assert_eq!(links.fdb(&link).await.unwrap(), vec![to("10.0.16.16")]);
        links.delete_fdb(&link, &to("10.0.16.16")).await.unwrap();
        links.delete_fdb(&link, &to("10.0.16.16")).await.unwrap();
        assert_eq!(links.fdb(&link).await.unwrap(), vec![]);
    });
}

#[test]
fn a_device_that_is_gone_is_recognised() {
    on_a_cell(|links| async move {
        let link = standing_vtep(&links).await;
        links.delete(&link).await.unwrap();
        let neighbour = Neighbour { address: "10.255.31.0".parse().unwrap(), mac: PEER_MAC };
        let error = links.replace_neighbour(&link, &neighbour).await.unwrap_err();
        assert!(error.is_no_such_link(), "{error}");
    });
}

#[test]
fn a_bridge_and_its_ports_are_told_from_other_devices() {
    let cell = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need CAP_SYS_ADMIN");
        ip("link add eth0 type veth peer name far0");
        ip("link add br0 type bridge");
        ip("link set far0 master br0");
        let of = |name| place(name).unwrap();
        assert_eq!(of("eth0"), Some(Place::Alone));
        assert_eq!(of("far0"), Some(Place::Port));
        assert_eq!(of("br0"), Some(Place::Bridge));
        assert_eq!(of("lo"), Some(Place::Other));
        assert_eq!(of("none"), None);
    });
    cell.join().unwrap();
}
