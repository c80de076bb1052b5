use super::*;

const ALL: Modes = Modes { default_deny: true, removals: true, security_groups: true };

fn answer(policies: &[&str]) -> Answer {
    Answer::allowing(&["db"], policies)
}

fn open(modes: Modes, folder: &tempfile::TempDir) -> Shadow {
    Shadow::open(modes, Some(folder.path().join("shadow.json")))
}

fn removals(shadow: &Shadow) -> Vec<String> {
    shadow.report().removals
}

#[test]
fn nothing_is_let_through_unless_it_is_configured() {
    let mut shadow = Shadow::off();
    shadow.follow(&answer(&["web 1 db tcp 80"]));
    shadow.follow(&answer(&[]));
    assert_eq!((shadow.report(), shadow.leniency()), (Report::default(), Leniency::default()));
}

#[test]
fn who_starts_is_told_what_is_only_watched() {
    let folder = tempfile::tempdir().unwrap();
    let mut shadow = open(ALL, &folder);
    assert_eq!(shadow.watched().unwrap(), "default_deny, removals, security_groups");
    shadow.promote(&Kind::ALL.into()).unwrap();
    assert_eq!(shadow.watched().unwrap(), "removals", "later ones");
    assert_eq!(open(ALL, &folder).watched().unwrap(), "removals");
    assert_eq!(Shadow::off().watched(), None);
}

#[test]
fn a_removal_is_watched_until_it_is_promoted_and_the_next_one_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut shadow = open(ALL, &folder);
    shadow.follow(&answer(&["web 1 db tcp 80", "web 1 db tcp 81"]));
    assert_eq!(removals(&shadow), [""; 0]);
    shadow.follow(&answer(&["web 1 db tcp 81"]));
    assert_eq!(removals(&shadow), ["web -> db tcp 80"]);
    let promoted = shadow.promote(&[Kind::Removals].into()).unwrap();
    assert_eq!(promoted.now.removals, ["web -> db tcp 80"]);
    assert!(shadow.leniency().removed.is_empty());
    shadow.follow(&answer(&[]));
    assert_eq!(removals(&shadow), ["web -> db tcp 81"]);
}

#[test]
fn an_agent_that_was_killed_remembers() {
    let folder = tempfile::tempdir().unwrap();
    let mut shadow = open(ALL, &folder);
    shadow.follow(&answer(&["web 1 db tcp 80"]));
    shadow.follow(&answer(&[]));
    shadow.promote(&[Kind::DefaultDeny].into()).unwrap();
    let report = shadow.report();
    let mut again = open(ALL, &folder);
    // The answer on disk may be the one before, or the one that removed it.
    for policies in [&["web 1 db tcp 80"][..], &[], &[]] {
        again.follow(&answer(policies));
    }
    assert_eq!(again.report(), report);
    assert!(!report.default_deny);
    assert_eq!(report.removals, ["web -> db tcp 80"]);
}

#[test]
fn a_mode_that_is_turned_off_and_on_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut shadow = open(ALL, &folder);
    shadow.promote(&Kind::ALL.into()).unwrap();
    assert_eq!(shadow.report(), Report { later_removals: true, ..Report::default() });
    open(Modes::default(), &folder);
    assert!(open(ALL, &folder).report().default_deny);
}

#[test]
fn what_a_mode_that_was_turned_off_let_in_stays_out_when_it_is_on_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut shadow = open(ALL, &folder);
    shadow.follow(&answer(&["web 1 db tcp 80"]));
    shadow.follow(&answer(&[]));
    assert_eq!(removals(&open(ALL, &folder)), ["web -> db tcp 80"]);
    open(Modes::default(), &folder);
    assert_eq!(removals(&open(ALL, &folder)), [""; 0]);
}

#[test]
fn who_only_looks_leaves_what_is_kept_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut shadow = open(ALL, &folder);
    shadow.follow(&answer(&["web 1 db tcp 80"]));
    shadow.follow(&answer(&[]));
    let path = folder.path().join("shadow.json");
    let before = std::fs::read(&path).unwrap();
    assert_eq!(Shadow::foreseen(ALL, Some(path.clone())), shadow.report());
    assert_eq!(Shadow::foreseen(Modes::default(), Some(path.clone())), Report::default());
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn what_is_still_only_watched_is_told() {
    let mut shadow = open(ALL, &tempfile::tempdir().unwrap());
    let promoted = shadow.promote(&[Kind::SecurityGroups].into()).unwrap();
    let still = Report { default_deny: true, later_removals: true, ..Report::default() };
    assert_eq!(promoted.still_watched, still);
}

#[test]
fn promoting_what_is_off_promotes_nothing_for_later() {
    let folder = tempfile::tempdir().unwrap();
    open(Modes::default(), &folder).promote(&Kind::ALL.into()).unwrap();
    let later = open(ALL, &folder).report();
    assert!(later.default_deny && later.security_groups);
}

#[test]
fn a_file_that_was_damaged_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("shadow.json"), "{\"promoted\":[\"defa").unwrap();
    assert_eq!(open(ALL, &folder).leniency(), Leniency::default());
}

#[test]
fn security_groups_are_watched_until_they_are_promoted_and_whoever_writes_them_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut shadow = open(ALL, &folder);
    let mut watches = shadow.watches_groups();
    assert!(*watches.borrow_and_update() && shadow.report().security_groups);
    shadow.promote(&[Kind::DefaultDeny, Kind::Removals].into()).unwrap();
    assert!(*watches.borrow_and_update());
    let promoted = shadow.promote(&[Kind::SecurityGroups].into()).unwrap();
    assert!(promoted.now.security_groups && !promoted.still_watched.security_groups);
    assert!(watches.has_changed().unwrap() && !*watches.borrow_and_update());
    assert!(!*open(ALL, &folder).watches_groups().borrow(), "it is remembered");
    assert!(!*Shadow::off().watches_groups().borrow());
}

#[test]
fn what_cannot_be_remembered_is_not_promoted() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let mut shadow = Shadow::open(ALL, None);
    shadow.memory = Memory::at(Some(folder.path().join("file/shadow.json")));
    assert!(shadow.promote(&Kind::ALL.into()).is_err());
    assert!(shadow.report().default_deny);
}

#[test]
fn the_server_is_told_what_is_not_enforced() {
    let lenient = |default_deny, removals: &[&str]| {
        let removals = removals.iter().map(ToString::to_string).collect();
        let report = Report { default_deny, removals, security_groups: true, later_removals: true };
        report.policies_are_lenient()
    };
    assert_eq!(lenient(false, &[]), None);
    let both =
        "shadow mode: what no policy allows is let through; a removed policy is still let in";
    assert_eq!(lenient(true, &["one"]).as_deref(), Some(both));
    let two = "shadow mode: 2 removed policies are still let in";
    assert_eq!(lenient(false, &["one", "two"]).as_deref(), Some(two));
}

#[test]
fn kinds_are_read_as_people_write_them() {
    assert_eq!("default-deny".parse(), Ok(Kind::DefaultDeny));
    assert_eq!("removals".parse(), Ok(Kind::Removals));
    assert!("all".parse::<Kind>().is_err());
}
