//! The container store belongs to whoever else is to read it.

use std::os::unix::fs::MetadataExt;

use serde_json::Value;

use crate::cell::{Cell, Process};

/// Debian's user and group of this name.
const DAEMON: (u32, u32) = (1, 1);

const FILES: [&str; 4] =
    ["store/store.json", "store/store.json_lock", "store/store.json_version", "iptables.lock"];

fn belong_to(cell: &Cell, files: &[&str], owner: (u32, u32)) {
    for file in files {
        let about = std::fs::metadata(cell.path(file)).unwrap();
        assert_eq!((about.uid(), about.gid()), owner, "{file}");
        assert_eq!(about.mode() & 0o777, 0o600, "{file}");
    }
}

#[test]
fn the_store_is_given_to_whom_the_configuration_names_and_stays_theirs() {
    let (mut cell, web, db) = (Cell::new(), Process::start(), Process::start());
    cell.up("web", &web).answer();
    belong_to(&cell, &FILES, (0, 0));
    cell.configure("datastore_file_owner", "daemon");
    // One of the names says nothing.
    cell.up("db", &db).answer();
    belong_to(&cell, &FILES, (0, 0));
    cell.down("db").fine();
    cell.configure("datastore_file_group", "daemon");
    cell.up("db", &db).answer();
    belong_to(&cell, &FILES, DAEMON);
    cell.down("db").fine();
    belong_to(&cell, &FILES, DAEMON);
    for key in ["datastore_file_owner", "datastore_file_group"] {
        cell.configure(key, Value::Null);
    }
    cell.up("db", &db).answer();
    belong_to(&cell, &FILES, DAEMON);
    cell.down("db").fine();
    cell.down("web").fine();
    cell.is_bare();
}

#[test]
fn an_owner_nobody_knows_refuses_containers_and_keeps_none() {
    let (mut cell, web, db) = (Cell::new(), Process::start(), Process::start());
    cell.up("web", &web).answer();
    cell.configure("datastore_file_owner", "nobody-here");
    cell.configure("datastore_file_group", "daemon");
    assert_eq!(
        cell.up("db", &db).complaint(),
        "cell: this cell cannot connect containers: there is no user nobody-here on this cell, which is datastore_file_owner in the configuration\n"
    );
    assert_eq!(cell.stored(), ["web"]);
    cell.down("web").fine();
    cell.is_bare();
}
