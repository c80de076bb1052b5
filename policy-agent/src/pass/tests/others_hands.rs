//! Others write to the kernel as well.

use super::*;

/// Somebody else empties the chain that lets in.
fn vandalise(cell: &Cell) {
    let mut kernel = cell.kernel.lock().unwrap();
    let before = kernel.state.clone();
    let plan = Plan::of(kernel.dialect, Table::Filter, vec![Step::Declare("vpa--ingress".into())]);
    kernel.commit(&plan).unwrap();
    assert_ne!(kernel.state, before);
}

#[test]
fn a_repair_that_fails_takes_the_receipt_back() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let answer = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.enforcer.pass(Some(&answer), false).unwrap();
    vandalise(&cell);
    // The first pass cannot even look.
    cell.kernel.lock().unwrap().failures = 1;
    let held = cell.enforcer.pass(Some(&answer), false).unwrap_err();
    assert!(matches!(held, Held::Kernel(_)), "{held}");
    cell.kernel.lock().unwrap().killed_after = Some(0);
    let held = cell.enforcer.pass(Some(&answer), false).unwrap_err();
    let Held::Disagrees(chains, Some(_)) = held else { panic!("{held}") };
    assert_eq!(chains, ["vpa--ingress".to_owned()].into());
    let outcome = cell.enforcer.pass(Some(&answer), false).unwrap();
    assert!(outcome.enforced && outcome.repaired);
    let told: Vec<_> = outcome.drift.iter().map(|change| change.chain.as_str()).collect();
    assert_eq!(
        told,
        ["vpa--ingress"],
        "what the pass before found is told by the one that succeeds"
    );
}

#[test]
fn a_change_that_fails_leaves_the_receipt_for_what_was_there_before() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    cell.enforcer.pass(Some(&answer(&["db"], &[("web", 1, "db", 2)])), false).unwrap();
    cell.kernel.lock().unwrap().killed_after = Some(0);
    let more = answer(&["db"], &[("web", 1, "db", 2), ("far", 3, "db", 2)]);
    let held = cell.enforcer.pass(Some(&more), false).unwrap_err();
    assert!(matches!(held, Held::Kernel(_)), "{held}");
    // Unless that is not there any more either.
    vandalise(&cell);
    cell.kernel.lock().unwrap().killed_after = Some(0);
    let held = cell.enforcer.pass(Some(&more), false).unwrap_err();
    assert!(matches!(held, Held::Disagrees(..)), "{held}");
}

#[test]
fn vandalised_rules_are_repaired_and_counted_as_repairs() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let answer = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.enforcer.pass(Some(&answer), false).unwrap();
    let healthy = cell.kernel.lock().unwrap().state.clone();
    cell.kernel.lock().unwrap().state = Observed::parse("*filter\n:FORWARD ACCEPT\n").unwrap();
    let outcome = cell.enforcer.pass(Some(&answer), false).unwrap();
    assert!(outcome.repaired);
    let gone = |chain: &str| Drift { chain: chain.into(), what: "the chain was gone".into() };
    assert!(outcome.drift.contains(&gone("vpa--to-db")), "{:?}", outcome.drift);
    assert!(cell.enforcer.pass(Some(&answer), false).unwrap().drift.is_empty());
    let kernel = cell.kernel.lock().unwrap();
    assert_eq!(
        kernel.state.rules(Table::Filter, "FORWARD"),
        healthy.rules(Table::Filter, "FORWARD")
    );
}

fn forward(cell: &Cell) -> Vec<String> {
    cell.kernel.lock().unwrap().state.rules(Table::Filter, "FORWARD").unwrap().to_vec()
}

fn insert(state: &mut Observed, rule: &str) {
    state.rules_mut(Table::Filter, "FORWARD").unwrap().insert(0, rule.to_owned());
}

/// However they come: in one go, or while those before are taken out.
#[test]
fn a_strangers_rule_in_our_own_table_goes_and_the_next_one_is_noticed() {
    let kernel = FakeKernel { generation: Some(7), ..FakeKernel::speaking(Dialect::Nft) };
    let mut cell = Cell::with(kernel);
    cell.run("h", "10.255.30.3", "db");
    let answer = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.enforcer.pass(Some(&answer), false).unwrap();
    let healthy = forward(&cell);
    {
        let mut kernel = cell.kernel.lock().unwrap();
        insert(&mut kernel.state, "counter accept");
        kernel.generation = Some(100);
        let mut again = 1;
        kernel.intruder = Some(Box::new(move |state| {
            if again > 0 {
                insert(state, "accept");
                again -= 1;
            }
        }));
    }
    assert!(cell.enforcer.has_moved());
    let outcome = cell.enforcer.pass(Some(&answer), false).unwrap();
    let told = outcome.drift.iter().any(|one| one.what.contains("foreign rule `counter accept`"));
    assert!(outcome.repaired && told, "{:?}", outcome.drift);
    // What came meanwhile is noticed at the next look, not at the next repair.
    cell.kernel.lock().unwrap().intruder = None;
    if forward(&cell) != healthy {
        cell.enforcer.pass(Some(&answer), true).unwrap();
    }
    assert_eq!(forward(&cell), healthy);
    assert!(!cell.enforcer.has_moved());
    insert(&mut cell.kernel.lock().unwrap().state, "accept");
    cell.kernel.lock().unwrap().generation = Some(200);
    assert!(cell.enforcer.has_moved());
}

#[test]
fn a_strangers_rule_that_stays_is_told_and_holds_nothing_up() {
    let mut cell = Cell::with(FakeKernel::speaking(Dialect::Nft));
    cell.run("h", "10.255.30.3", "db");
    let answer = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.enforcer.pass(Some(&answer), false).unwrap();
    insert(&mut cell.kernel.lock().unwrap().state, "accept");
    // Each time it is about to be taken out, somebody else has done so, and put in another.
    let mut number = 0;
    cell.kernel.lock().unwrap().intruder = Some(Box::new(move |state| {
        let rules = state.rules_mut(Table::Filter, "FORWARD").unwrap();
        rules.retain(|rule| !rule.ends_with("accept"));
        number += 1;
        if number < 3 {
            rules.push(format!("mark {number} accept"));
        }
    }));
    let outcome = cell.enforcer.pass(Some(&answer), false).unwrap();
    assert!(outcome.enforced);
    assert_eq!(outcome.bypassed.len(), 1, "{:?}", outcome.bypassed);
    let told = outcome.bypassed[0].to_string();
    assert!(told.contains("cannot be taken out"), "{told}");
    cell.kernel.lock().unwrap().intruder = None;
    let outcome = cell.enforcer.pass(Some(&answer), true).unwrap();
    assert_eq!(outcome.bypassed, []);
}

#[test]
fn a_kernel_that_counts_its_changes_is_read_once_and_after_the_changes_of_others() {
    let mut cell = Cell::with(FakeKernel { generation: Some(7), ..FakeKernel::default() });
    cell.run("h", "10.255.30.3", "db");
    for mark in 1..5 {
        let answer = answer(&["db"], &[("web", mark, "db", 9)]);
        assert!(cell.enforcer.pass(Some(&answer), false).unwrap().enforced);
    }
    assert_eq!((cell.commits(), cell.readings()), (4, 1));
    assert!(!cell.enforcer.has_moved());

    let last = answer(&["db"], &[("web", 4, "db", 9)]);
    {
        let mut kernel = cell.kernel.lock().unwrap();
        kernel.state = Observed::parse("*filter\n:FORWARD ACCEPT\n").unwrap();
        kernel.generation = Some(99);
    }
    assert!(cell.enforcer.has_moved());
    assert!(cell.enforcer.pass(Some(&last), false).unwrap().repaired);
    assert!(!cell.enforcer.has_moved());
}

#[test]
fn a_thorough_pass_reads_the_kernel_whatever_it_counts() {
    let mut cell = Cell::with(FakeKernel { generation: Some(7), ..FakeKernel::default() });
    cell.run("h", "10.255.30.3", "db");
    let answer = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.enforcer.pass(Some(&answer), true).unwrap();
    cell.kernel.lock().unwrap().state = Observed::parse("*filter\n:FORWARD ACCEPT\n").unwrap();
    assert!(!cell.enforcer.pass(Some(&answer), false).unwrap().repaired);
    assert!(cell.enforcer.pass(Some(&answer), true).unwrap().repaired);
}
