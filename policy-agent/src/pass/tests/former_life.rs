//! What an agent does about the kernel before it knows anything.

use super::*;

#[test]
fn a_fresh_cell_is_shut_before_the_server_has_said_anything() {
    let mut cell = Cell::new();
    let outcome = cell.enforcer.pass(None, false).unwrap();
    assert!(!outcome.enforced);
    assert!(cell.rules("vpa--ingress").unwrap().iter().any(|rule| rule.contains("REJECT")));
}

#[test]
fn an_agent_that_knows_nothing_yet_leaves_the_rules_of_its_former_life() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    cell.enforcer.pass(Some(&answer(&["db"], &[("web", 1, "db", 2)])), false).unwrap();
    let before = cell.rules("vpa--doors.dst");
    cell.restart();
    assert!(!cell.enforcer.pass(None, false).unwrap().enforced);
    assert_eq!(cell.rules("vpa--doors.dst"), before);
    assert_eq!(cell.commits(), 1);
}

#[test]
fn an_agent_that_knows_nothing_yet_takes_no_container_for_an_earlier_one_at_its_address() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    cell.run("i", "10.255.30.4", "db");
    let known = answer(&["db"], &[("db", 2, "far", 4), ("far", 4, "db", 2)]);
    cell.enforcer.pass(Some(&known), false).unwrap();
    let mark = |ip| format!("-s {ip}/32 -j MARK --set-xmark 0x2/0xffffffff");
    let lead = |ip| format!("-d {ip}/32 -g vpa--to-db");
    assert_eq!(cell.rules("vpa--tags.src").unwrap(), [mark("10.255.30.3"), mark("10.255.30.4")]);
    assert_eq!(cell.rules("vpa--doors.dst").unwrap(), [lead("10.255.30.3"), lead("10.255.30.4")]);
    let door = cell.rules("vpa--to-db.ok");

    cell.restart();
    store(&cell.files).remove("h").unwrap();
    cell.run("j", "10.255.30.3", "other");
    assert!(!cell.enforcer.pass(None, false).unwrap().enforced);
    assert_eq!(cell.rules("vpa--tags.src").unwrap(), [mark("10.255.30.4")]);
    assert_eq!(cell.rules("vpa--doors.dst").unwrap(), [lead("10.255.30.4")]);
    assert_eq!(cell.rules("vpa--to-db.ok"), door);
    assert_eq!(cell.commits(), 2);
    cell.enforcer.pass(None, false).unwrap();
    assert_eq!(cell.commits(), 2);
}

#[test]
fn nor_does_it_with_nftables() {
    let mut cell = Cell::with(FakeKernel::speaking(Dialect::Nft));
    cell.run("h", "10.255.30.3", "db");
    cell.run("i", "10.255.30.4", "db");
    let known = answer(&["db"], &[("db", 2, "far", 4), ("far", 4, "db", 2)]);
    cell.enforcer.pass(Some(&known), false).unwrap();
    let sets = ["vpa--tags", "filter/vpa--doors"];
    assert!(sets.iter().all(|set| cell.elements(set).len() == 2));

    cell.restart();
    store(&cell.files).remove("h").unwrap();
    cell.run("j", "10.255.30.3", "other");
    assert!(!cell.enforcer.pass(None, false).unwrap().enforced);
    let of_db = address("10.255.30.4");
    assert_eq!(cell.elements(sets[0]), [Element::Tag(of_db, 2)].into());
    assert_eq!(cell.elements(sets[1]), [Element::Door(of_db, "filter/vpa--to-db".into())].into());
    assert_eq!(cell.commits(), 2);
    cell.enforcer.pass(None, false).unwrap();
    assert_eq!(cell.commits(), 2);
}

#[test]
fn an_agent_that_knows_nothing_yet_puts_back_the_way_into_its_rules() {
    let mut cell = Cell::new();
    cell.enforcer.pass(Some(&answer(&[], &[])), false).unwrap();
    cell.restart();
    let foreign = "*filter\n:FORWARD ACCEPT\n-A FORWARD -j ACCEPT\n:vpa--forward -\n";
    cell.kernel.lock().unwrap().state = Observed::parse(foreign).unwrap();
    cell.enforcer.pass(None, false).unwrap();
    assert_eq!(cell.rules("FORWARD").unwrap(), ["-j vpa--forward", "-j ACCEPT"]);
}
