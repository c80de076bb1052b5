//! Connections that nothing allows any more are cut.

use super::*;

#[test]
fn connections_that_could_not_be_judged_are_judged_by_the_next_pass() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let nothing = answer(&["db"], &[]);
    cell.enforcer.pass(Some(&nothing), false).unwrap();
    // While somebody else's rule stands in ours, a connection gets in.
    cell.kernel.lock().unwrap().state = Observed::parse("*filter\n:FORWARD ACCEPT\n").unwrap();
    *cell.connections.list.lock().unwrap() = [connection(1)].into();
    *cell.connections.failures.lock().unwrap() = 1;
    assert!(matches!(cell.enforcer.pass(Some(&nothing), false), Err(Held::Connections(_))));
    assert_eq!(cell.enforcer.pass(Some(&nothing), false).unwrap().connections_cut, 1);
}

#[test]
fn who_got_in_by_anothers_rule_is_cut_though_the_next_answer_only_allows_more() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let before = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.enforcer.pass(Some(&before), true).unwrap();
    {
        let mut kernel = cell.kernel.lock().unwrap();
        let by_hand = Step::Prepend("vpa--forward".into(), "-j ACCEPT".into());
        let plan = Plan::of(Dialect::Iptables(Family::V4), Table::Filter, vec![by_hand]);
        kernel.commit(&plan).unwrap();
        kernel.generation = kernel.generation.map(|number| number + 1);
    }
    *cell.connections.list.lock().unwrap() = [connection(1), connection(9)].into();
    let more = answer(&["db"], &[("web", 1, "db", 2), ("log", 3, "db", 2)]);
    let outcome = cell.enforcer.pass(Some(&more), false).unwrap();
    assert!(outcome.repaired && !outcome.drift.is_empty(), "{outcome:?}");
    assert_eq!(outcome.connections_cut, 1);
    assert_eq!(*cell.connections.list.lock().unwrap(), [connection(1)]);
}

#[test]
fn taking_a_policy_away_cuts_its_connections_and_no_others() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let both = answer(&["db"], &[("web", 1, "db", 2), ("far", 4, "db", 2)]);
    cell.enforcer.pass(Some(&both), false).unwrap();
    *cell.connections.list.lock().unwrap() = [connection(1), connection(4)].into();
    let one = answer(&["db"], &[("far", 4, "db", 2)]);
    assert_eq!(cell.enforcer.pass(Some(&one), false).unwrap().connections_cut, 1);
    assert_eq!(*cell.connections.list.lock().unwrap(), [connection(4)]);
}

#[test]
fn a_removal_that_is_watched_cuts_nothing_until_it_is_promoted() {
    let mut cell = Cell::new();
    cell.run("db", "10.255.30.3", "db");
    let modes = crate::ShadowModes { removals: true, ..crate::ShadowModes::default() };
    cell.enforcer.shadow = Shadow::open(modes, Some(cell.files.path().join("shadow.json")));
    let allowed = answer(&["db"], &[("web", 1, "db", 2)]);
    let removed = answer(&["db"], &[]);
    cell.enforcer.pass(Some(&allowed), true).unwrap();
    *cell.connections.list.lock().unwrap() = [connection(1), connection(9)].into();
    let outcome = cell.enforcer.pass(Some(&removed), true).unwrap();
    assert_eq!(outcome.shadow.removals, ["web -> db tcp 8080"]);
    assert_eq!(
        *cell.connections.list.lock().unwrap(),
        [connection(1)],
        "the other was never let in"
    );
    assert!(cell.rules("vpa--to-db").unwrap().iter().any(|rule| rule.contains("still")));

    let promoted = cell.enforcer.promote(&Kind::ALL.into()).unwrap();
    assert_eq!(promoted.now.removals, ["web -> db tcp 8080"]);
    let outcome = cell.enforcer.pass(Some(&removed), false).unwrap();
    assert_eq!(outcome.shadow, Report { later_removals: true, ..Report::default() });
    assert_eq!(outcome.connections_cut, 1);
    assert!(!cell.rules("vpa--to-db").unwrap().iter().any(|rule| rule.contains("still")));
}

#[test]
fn who_got_in_while_our_rules_were_away_for_a_moment_is_cut() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    cell.kernel.lock().unwrap().generation = Some(1);
    let known = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.enforcer.pass(Some(&known), true).unwrap();
    // They are back before anyone looks, and nothing is to be repaired.
    let mut kernel = cell.kernel.lock().unwrap();
    kernel.generation = kernel.generation.map(|number| number + 2);
    drop(kernel);
    *cell.connections.list.lock().unwrap() = [connection(1), connection(9)].into();
    let outcome = cell.enforcer.pass(Some(&known), false).unwrap();
    assert_eq!((outcome.repaired, outcome.connections_cut), (false, 1));
    assert_eq!(*cell.connections.list.lock().unwrap(), [connection(1)]);
}
