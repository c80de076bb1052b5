//! Files that are lost, torn or full.

use std::fs;

use serde_json::json;

use crate::cell::{Cell, Process, request};

#[test]
fn down_needs_no_memory() {
    let (cell, container) = (Cell::new(), Process::start());
    cell.up("web", &container).answer();
    fs::remove_dir_all(cell.path("state")).unwrap();
    fs::remove_file(cell.path("store/store.json")).unwrap();
    cell.down("web").fine();
    cell.is_bare();

    cell.up("web", &container).answer();
    fs::write(cell.path("state/containers/web.json"), "{\"handle\":\"we").unwrap();
    cell.down("web").warned("unreadable");
    cell.is_bare();
}

#[test]
fn a_truncated_store_is_rebuilt_from_the_containers_that_are_up() {
    let (cell, web, db) = (Cell::new(), Process::start(), Process::start());
    cell.up("web", &web).answer();
    fs::write(cell.path("store/store.json"), "{\"web\":{\"han").unwrap();
    let up = cell.up("db", &db);
    assert_eq!(up.code, Some(0), "{up:?}");
    assert!(up.stderr.contains("store.json") && up.stderr.contains("rebuilt"), "{}", up.stderr);
    assert_eq!(cell.stored(), ["db", "web"]);

    fs::write(cell.path("store/store.json"), "[").unwrap();
    cell.down("db").warned("rebuilt");
    assert_eq!(cell.stored(), ["web"]);
    cell.down("web").fine();
    cell.is_bare();
}

#[test]
fn a_store_or_a_pool_that_is_lost_is_rebuilt_from_the_containers_that_are_there() {
    let (cell, web, db) = (Cell::new(), Process::start(), Process::start());
    cell.up("web", &web).answer();
    cell.up("gone", &Process::start()).answer();
    // As after a reboot: remembered, and not there.
    hostnet::netns::unpin(&cell.path("netns/gone")).unwrap();
    fs::remove_file(cell.path("store/store.json")).unwrap();
    fs::write(cell.path("state/state.json"), "").unwrap();
    let up = cell.up("db", &db);
    assert_eq!(up.code, Some(0), "{up:?}");
    for file in ["store.json", "state.json"] {
        assert!(up.stderr.contains(&format!("{file} was lost and was rebuilt")), "{}", up.stderr);
    }
    assert_eq!(cell.stored(), ["db", "web"]);
    assert_eq!(
        cell.json("state/state.json"),
        json!({"acquired_ports": {"web": [61000], "db": [61001]}})
    );
    for handle in ["web", "db", "gone"] {
        cell.down(handle).fine();
    }
    cell.is_bare();
}

#[test]
fn a_truncated_port_pool_is_rebuilt_and_gives_no_port_twice() {
    let (cell, web, db) = (Cell::new(), Process::start(), Process::start());
    cell.up("web", &web).answer();
    fs::write(cell.path("state/state.json"), "{\"acquired_ports\":{\"web\":[6100").unwrap();
    let up = cell.up("db", &db);
    assert_eq!(up.code, Some(0), "{up:?}");
    assert_eq!(
        cell.json("state/state.json"),
        json!({"acquired_ports": {"web": [61000], "db": [61001]}})
    );
    cell.down("web").fine();
    cell.down("db").fine();
    cell.is_bare();
}

#[test]
fn a_pool_that_is_exhausted_says_so_and_leaves_nothing() {
    let (mut cell, container) = (Cell::new(), Process::start());
    cell.configure("total_ports", 2);
    let mut three = request(&container);
    three["netin"] = json!([{"container_port": 1}, {"container_port": 2}, {"container_port": 3}]);
    assert_eq!(
        cell.run("up", "web", &three).complaint(),
        "cell: allocating ports: port pool exhausted\n"
    );
    cell.is_bare();
}
