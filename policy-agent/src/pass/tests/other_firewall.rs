//! What stands in the firewall that is not written any more.

use super::*;

#[test]
fn rules_in_the_other_firewall_go_once_this_one_has_them() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let answer = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.enforcer.pass(Some(&answer), true).unwrap();
    let foreign = "-s 10.0.0.9/32 -j ACCEPT".to_owned();
    let old = cell.kernel.clone();
    let by_hand = Step::Append("FORWARD".into(), foreign.clone());
    let plan = Plan::of(Dialect::Iptables(Family::V4), Table::Filter, vec![by_hand]);
    old.lock().unwrap().commit(&plan).unwrap();

    // The same cell, told to write nftables from now on.
    cell.kernel = Arc::new(Mutex::new(FakeKernel::speaking(Dialect::Nft)));
    cell.restart();
    cell.enforcer.former = Former::of(Some(Box::new(old.clone())));
    cell.enforcer.pass(None, true).unwrap();
    assert!(old.lock().unwrap().state.chains(Table::Filter).any(|name| name == "vpa--to-db"));
    old.lock().unwrap().failures = 1;
    assert!(cell.enforcer.pass(Some(&answer), false).unwrap().enforced);
    assert!(old.lock().unwrap().state.chains(Table::Filter).any(|name| name == "vpa--to-db"));
    cell.enforcer.pass(Some(&answer), false).unwrap();
    let old = old.lock().unwrap();
    assert!(!old.state.chains(Table::Filter).any(|name| name.starts_with("vpa--")));
    assert_eq!(old.state.rules(Table::Filter, "FORWARD").unwrap(), [foreign]);
}

#[test]
fn rules_in_the_other_firewall_stand_aside_while_containers_have_theirs_there() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let answer = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.enforcer.pass(Some(&answer), true).unwrap();
    let old = cell.kernel.clone();
    let v4 = Dialect::Iptables(Family::V4);
    let networkers = vec![
        Step::Declare("overlay--h".into()),
        Step::Append("FORWARD".into(), "-j overlay--h".into()),
    ];
    old.lock().unwrap().commit(&Plan::of(v4, Table::Filter, networkers)).unwrap();

    cell.kernel = Arc::new(Mutex::new(FakeKernel::speaking(Dialect::Nft)));
    cell.restart();
    cell.enforcer.former = Former::of(Some(Box::new(old.clone())));
    cell.enforcer.pass(Some(&answer), true).unwrap();
    {
        let old = old.lock().unwrap();
        let forward = ["-j vpa--forward", "-j overlay--h"];
        assert_eq!(old.state.rules(Table::Filter, "FORWARD").unwrap(), forward);
        let aside = ["-d 10.255.30.0/24 -j ACCEPT", "-s 10.255.30.0/24 -d 10.255.0.0/16 -j ACCEPT"];
        assert_eq!(old.state.rules(Table::Filter, "vpa--forward").unwrap(), aside);
    }
    let moved = vec![
        Step::Delete("FORWARD".into(), "-j overlay--h".into()),
        Step::Remove("overlay--h".into()),
    ];
    old.lock().unwrap().commit(&Plan::of(v4, Table::Filter, moved)).unwrap();
    cell.enforcer.pass(Some(&answer), true).unwrap();
    assert!(!old.lock().unwrap().state.chains(Table::Filter).any(|name| name.contains("--")));
}
