//! Files that say nothing, or are not there.

use super::*;

#[test]
fn an_unreadable_store_takes_nothing_away() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let answer = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.enforcer.pass(Some(&answer), false).unwrap();
    let before = cell.rules("vpa--doors.dst");
    std::fs::write(store(&cell.files).path(), "{\"h\":").unwrap();
    assert!(cell.enforcer.pass(Some(&answer), false).unwrap().enforced);
    assert_eq!(cell.rules("vpa--doors.dst"), before);

    cell.restart();
    assert!(matches!(
        cell.enforcer.pass(Some(&answer), false),
        Err(Held::Unknown(Unknown::Containers(_)))
    ));
    assert_eq!(cell.rules("vpa--doors.dst"), before);
}

#[test]
fn a_store_that_is_gone_takes_nothing_away_and_an_empty_one_does() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let answer = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.enforcer.pass(Some(&answer), false).unwrap();
    let before = cell.rules("vpa--doors.dst");
    let store = store(&cell.files).path().to_owned();
    std::fs::write(&store, "").unwrap();
    cell.enforcer.pass(Some(&answer), false).unwrap();
    assert_eq!(cell.rules("vpa--doors.dst"), before);
    std::fs::remove_file(&store).unwrap();
    cell.enforcer.pass(Some(&answer), false).unwrap();
    assert_eq!(cell.rules("vpa--doors.dst"), before);

    std::fs::write(&store, "{}").unwrap();
    cell.enforcer.pass(Some(&answer), false).unwrap();
    assert_ne!(cell.rules("vpa--doors.dst"), before);
}

#[test]
fn a_store_lost_while_the_agent_was_away_takes_nothing_away() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let answer = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.enforcer.pass(Some(&answer), false).unwrap();
    let before = cell.rules("vpa--doors.dst");
    std::fs::remove_file(store(&cell.files).path()).unwrap();
    cell.restart();
    let held = cell.enforcer.pass(Some(&answer), false).unwrap_err();
    assert!(matches!(held, Held::Unknown(Unknown::StoreGone(_))), "{held}");
    assert_eq!(cell.rules("vpa--doors.dst"), before);

    cell.run("i", "10.255.30.4", "db");
    assert!(cell.enforcer.pass(Some(&answer), false).unwrap().enforced);
    let lead = "-d 10.255.30.4/32 -g vpa--to-db".to_owned();
    assert_eq!(cell.rules("vpa--doors.dst").unwrap(), [lead]);
}

#[test]
fn without_a_subnet_nothing_is_decided() {
    let mut cell = Cell::new();
    std::fs::remove_file(cell.files.path().join("subnet.env")).unwrap();
    let held = cell.enforcer.pass(None, false).unwrap_err();
    assert!(chain(&held).contains("is the overlay daemon running?"), "{}", chain(&held));
    assert_eq!(cell.commits(), 0);
}
