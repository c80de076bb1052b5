//! What is not known is told as such.

use super::*;

#[test]
fn what_rules_of_a_former_run_say_is_not_told_as_if_it_were_known() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let answer = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.enforcer.pass(Some(&answer), false).unwrap();
    cell.restart();
    for _ in 0..2 {
        let outcome = cell.enforcer.pass(None, false).unwrap();
        assert!(!outcome.enforced && outcome.of_former_run && outcome.rules > 10, "{outcome:?}");
    }
    let flow = Flow::parse("web", "db", "80").unwrap();
    let told = cell.enforcer.explain(None, &flow).unwrap();
    assert_eq!(told.verdict.to_string(), "is for rules of a former run to decide");
    let of_former_run = "# Rules of a former run are in force";
    assert!(cell.enforcer.rules(None).unwrap().contains(of_former_run));

    assert!(!cell.enforcer.pass(Some(&answer), false).unwrap().of_former_run);
    assert_eq!(
        cell.enforcer.explain(Some(&answer), &flow).unwrap().verdict.to_string(),
        "is refused"
    );
    assert!(!cell.enforcer.rules(Some(&answer)).unwrap().contains(of_former_run));
}

#[test]
fn rules_of_this_run_are_not_those_of_a_former_one_though_the_server_has_said_nothing() {
    let mut cell = Cell::new();
    for _ in 0..2 {
        let outcome = cell.enforcer.pass(None, false).unwrap();
        assert!(!outcome.enforced && !outcome.of_former_run && outcome.rules > 0, "{outcome:?}");
    }
    let flow = Flow::parse("10.255.31.2", "10.255.30.9", "80").unwrap();
    assert_eq!(cell.enforcer.explain(None, &flow).unwrap().verdict.to_string(), "is refused");
}

#[test]
fn a_pass_without_a_store_says_which_file_it_could_not_read() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let answer = answer(&["db"], &[("web", 1, "db", 2)]);
    assert_eq!(cell.enforcer.pass(Some(&answer), false).unwrap().stale, None);
    let path = store(&cell.files).path().to_owned();
    std::fs::write(&path, "{\"h\":").unwrap();
    let outcome = cell.enforcer.pass(Some(&answer), false).unwrap();
    let named = path.display().to_string();
    assert!(outcome.enforced && outcome.stale.is_some_and(|why| why.contains(&named)));
    std::fs::write(&path, "{}").unwrap();
    assert_eq!(cell.enforcer.pass(Some(&answer), false).unwrap().stale, None);
}
