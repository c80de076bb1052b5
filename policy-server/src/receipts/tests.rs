mod several;

use std::collections::BTreeSet;

use policy::{AppGuid, Life, Revision, TagLength, Version, wire::status::Status};
use policy_store::{
    Change, HeardReceipt, LeaseKind, LeasePool, Options, State, StoreUrl, StoredReceipt,
};

use super::{here::Heard, rows::NOBODY, *};
use crate::snapshot::Subject;

const US: &str = "us";
const THEM: &str = "them";

fn version(revision: u64) -> Version {
    Version { life: Life::new("life").unwrap(), revision: Revision(revision) }
}

fn snapshot(revision: u64) -> Snapshot {
    let version = version(revision);
    let state = State {
        compacted: version.revision,
        version,
        policies: vec![],
        leases: vec![],
        security_groups: None,
        log: vec![],
    };
    Snapshot::of(state, TagLength::DEFAULT)
}

fn lease(host: u8) -> policy::Lease {
    let subnet = format!("10.255.{host}.0/24").parse().unwrap();
    policy::Lease::new([10, 0, 16, host].into(), subnet)
}

fn apps(names: &[&str]) -> BTreeSet<AppGuid> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn word_about(names: &[&str], enforced: Option<u64>) -> Word {
    let subject = Arc::new(Subject::Apps(apps(names)));
    Word { subject, enforced: enforced.map(version), backend: None, error: None, agent: None }
}

fn word(enforced: Option<u64>) -> Word {
    word_about(&["a"], enforced)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// What a server wrote of a cell, so long ago.
fn row(server: &str, cell: &str, enforced: Option<u64>, age: u64, silent: u64) -> HeardReceipt {
    let receipt = StoredReceipt {
        cell: cell.to_owned(),
        enforced: enforced.map(version),
        apps: Some(apps(&["a"])),
        backend: Some("nftables".to_owned()),
        error: None,
        agent: None,
        age: seconds(age),
    };
    HeardReceipt { server: server.to_owned(), receipt, server_silent: seconds(silent) }
}

/// Before whatever a test tells of.
fn long_ago(now: Instant) -> Instant {
    now - seconds(3600)
}

/// Names of cells and servers, what they enforce and for how many seconds they have been silent.
fn told(here: &Here, rows: &Rows, now: Instant) -> Vec<(String, Option<String>, Option<u64>, u64)> {
    let told = cells::all(here, rows, US, long_ago(now), now)
        .into_iter()
        .map(|cell| cell.status(&snapshot(9)));
    told.map(|cell| (cell.cell, cell.server, cell.enforced, cell.silent_seconds as u64)).collect()
}

fn cells_of(unwritten: &[rows::Ago]) -> Vec<(&str, u64)> {
    unwritten.iter().map(|(cell, _, ago)| (cell.as_str(), ago.as_secs())).collect()
}

#[test]
fn a_cell_is_known_by_its_last_word() {
    let (mut here, now) = (Here::default(), Instant::now());
    here.hear("cell-1", word(None), now);
    here.leave("cell-1", None, now);
    let ours = || Some(US.to_owned());
    assert_eq!(told(&here, &Rows::default(), now), [("cell-1".into(), ours(), None, 0)]);
    let later = now + seconds(30);
    here.hear("cell-1", word(Some(4)), later);
    let held = later + seconds(50);
    assert_eq!(told(&here, &Rows::default(), held), [("cell-1".into(), ours(), Some(4), 0)]);
    here.leave("cell-1", None, held);
    let away = held + seconds(7);
    assert_eq!(told(&here, &Rows::default(), away), [("cell-1".into(), ours(), Some(4), 7)]);
}

#[test]
fn what_is_new_is_written_once_and_what_is_not_never() {
    let (mut here, now) = (Here::default(), Instant::now());
    here.hear("one", word(Some(4)), now);
    here.hear("two", word(None), now);
    let later = now + seconds(3);
    let unwritten = here.take_unwritten(later);
    assert_eq!(cells_of(&unwritten.ours), [("one", 3), ("two", 3)]);
    for _ in 0..100 {
        here.leave("one", None, later);
        here.hear("one", word(Some(4)), later);
    }
    assert!(here.take_unwritten(later).is_empty(), "it says the same");
    here.put_back(unwritten);
    assert_eq!(here.take_unwritten(later).len(), 2, "the database was away");
    for newer in [word(Some(5)), word_about(&["a", "b"], Some(5)), word(None)] {
        here.hear("one", newer, later);
        assert_eq!(cells_of(&here.take_unwritten(later).ours), [("one", 0)]);
    }
    let troubled = Word { error: Some("no such table".to_owned()), ..word(None) };
    here.hear("one", troubled, later);
    assert_eq!(here.take_unwritten(later).len(), 1);
}

#[test]
fn a_cell_that_comes_to_enforce_more_says_so_once() {
    let (mut here, now) = (Here::default(), Instant::now());
    let mut confirms = |enforced| here.hear("one", word(enforced), now).confirmed;
    assert_eq!(confirms(Some(4)), None, "nobody knows since when");
    assert_eq!((confirms(Some(5)), confirms(Some(5))), (Some(Revision(5)), None));
    assert_eq!((confirms(Some(3)), confirms(None), confirms(Some(6))), (None, None, None));
}

#[test]
fn a_silent_cell_is_let_go_of_and_taken_back() {
    let (mut here, now) = (Here::default(), Instant::now());
    here.hear("one", word(Some(4)), now);
    here.take_unwritten(now);
    let late = now + seconds(3600);
    here.sweep(late);
    assert!(here.take_unwritten(late).is_empty(), "its poll is held");
    here.leave("one", None, late);
    here.sweep(late + seconds(9));
    assert!(here.take_unwritten(late + seconds(9)).is_empty(), "it may be on its way back");
    let silent = late + seconds(11);
    here.sweep(silent);
    let unwritten = here.take_unwritten(silent);
    assert_eq!(
        (cells_of(&unwritten.ours), cells_of(&unwritten.nobodys)),
        (vec![], vec![("one", 11)])
    );
    here.sweep(silent + seconds(60));
    assert!(here.take_unwritten(silent).is_empty(), "once");
    here.hear("one", word(Some(4)), silent);
    assert_eq!(cells_of(&here.take_unwritten(silent).ours), [("one", 0)]);
    here.leave("one", None, silent);
    here.sweep(silent + FORGET_AFTER + seconds(1));
    assert_eq!(told(&here, &Rows::default(), silent), [], "gone");
}

#[test]
fn other_servers_know_soon_that_a_cell_has_left() {
    let (mut here, began) = (Here::default(), Instant::now());
    here.hear("one", word(Some(4)), began);
    here.leave("one", None, began);
    let unwritten = here.take_unwritten(began);
    let written = |server: &'static str, ago| (server, rows::stored(ago));
    let ours: Vec<_> = unwritten.ours.into_iter().map(|ago| written(THEM, ago)).collect();
    // Another server reads what was `written` at one second at another; the first server lives.
    let silent = |rows: &[(&str, StoredReceipt)], written: u64, second: u64| {
        let (now, since) = (began + seconds(second), second - written);
        let heard = rows.iter().map(|(server, receipt)| HeardReceipt {
            server: (*server).to_owned(),
            receipt: StoredReceipt { age: receipt.age + seconds(since), ..receipt.clone() },
            server_silent: seconds(if *server == NOBODY { since } else { 1 }),
        });
        told(&Here::default(), &Rows::of_heard(heard.collect(), now), now)[0].3
    };
    assert_eq!(silent(&ours, 0, 9), 1, "it may be between two polls");
    let noticed = began + seconds(12);
    here.sweep(noticed);
    let unwritten = here.take_unwritten(noticed);
    let nobodys: Vec<_> = unwritten.nobodys.into_iter().map(|ago| written(NOBODY, ago)).collect();
    assert_eq!((silent(&nobodys, 12, 12), silent(&nobodys, 12, 40)), (12, 40));
    let back = began + seconds(50);
    here.hear("one", word(Some(4)), back);
    assert_eq!(cells_of(&here.take_unwritten(back).ours), [("one", 0)]);
}

#[test]
fn that_a_cell_has_left_is_written_until_the_database_takes_it() {
    let (mut here, began) = (Here::default(), Instant::now());
    here.hear("one", word(Some(4)), began);
    here.leave("one", None, began);
    here.take_unwritten(began);
    let late = began + seconds(12);
    here.sweep(late);
    assert_eq!(cells_of(&here.take_unwritten(late).nobodys), [("one", 12)]);
    let mut ours = row(US, "one", Some(4), 12, 1);
    ours.receipt.backend = None;
    here.compare(&Rows::of_heard(vec![ours], late), US, late);
    assert_eq!(cells_of(&here.take_unwritten(late).nobodys), [("one", 11)]);
    here.compare(&Rows::of_heard(vec![row(NOBODY, "one", Some(4), 11, 0)], late), US, late);
    assert!(here.take_unwritten(late).is_empty());
}

#[test]
fn the_last_word_counts_whichever_server_heard_it() {
    let (mut here, now) = (Here::default(), Instant::now());
    here.hear("gone there", word(Some(4)), now);
    here.leave("gone there", None, now);
    here.hear("come here", word(Some(5)), now);
    let now = now + seconds(100);
    let rows = Rows::of_heard(
        vec![
            row(THEM, "come here", Some(2), 3000, 4),
            row(THEM, "gone there", Some(6), 50, 4),
            row(THEM, "held there", Some(7), 3000, 4),
            row("dead", "left alone", Some(3), 3000, 40),
            row(NOBODY, "silent", None, 200, 0),
        ],
        now,
    );
    let by = |server: &str| Some(server.to_owned());
    assert_eq!(
        told(&here, &rows, now),
        [
            ("come here".into(), by(US), Some(5), 0),
            ("gone there".into(), by(THEM), Some(6), 4),
            ("held there".into(), by(THEM), Some(7), 4),
            ("left alone".into(), by("dead"), Some(3), 40),
            ("silent".into(), None, None, 200),
        ]
    );
    let confirmed = |revision| {
        let all = cells::all(&here, &rows, US, long_ago(now), now);
        let ours = all.into_iter().filter(|cell| cell.cell != "silent").collect::<Vec<_>>();
        cells::confirmed(&ours, &snapshot(revision))
    };
    assert_eq!(confirmed(9), Some(Revision(3)), "of ours, and of those who are nobody's");
}

#[test]
fn cells_that_went_to_another_server_are_not_counted_here() {
    let (mut here, began) = (Here::default(), Instant::now());
    for cell in ["away", "come back", "gone there", "held"] {
        here.hear(cell, word(Some(4)), began);
        here.leave(cell, None, began);
    }
    here.hear("held", word(Some(4)), began);
    let now = began + seconds(100);
    here.hear("come back", word(Some(4)), now);
    let rows = vec![
        row(NOBODY, "away", Some(4), 100, 0),
        row(THEM, "come back", Some(6), 50, 1),
        row(THEM, "gone there", Some(6), 50, 1),
        row("dead", "held", Some(6), 50, 40),
    ];
    let counted = cells::of_this(&here, &Rows::of_heard(rows, now), US, now);
    let counted: Vec<_> = counted.iter().map(|cell| cell.cell.as_str()).collect();
    assert_eq!(counted, ["away", "come back", "held"]);
}

#[test]
fn cells_that_keep_tags_from_becoming_free_are_named() {
    let (mut here, now) = (Here::default(), Instant::now());
    here.hear("behind", word(Some(4)), now);
    here.hear("not behind", word(Some(9)), now);
    here.hear("watches", word(None), now);
    let cells = known(&here, &Rows::default(), seconds(60));
    assert_eq!(cells.furthest_behind(&snapshot(9)), ["watches (nothing)", "behind (revision 4)"]);
}

#[test]
fn what_the_database_has_otherwise_is_written_again() {
    let (mut here, now) = (Here::default(), Instant::now());
    for cell in ["lost", "taken", "told", "older"] {
        here.hear(cell, word(Some(4)), now);
    }
    here.hear("elsewhere", word(Some(4)), now);
    here.leave("elsewhere", None, now);
    here.take_unwritten(now);
    let now = now + seconds(60);
    let told = |server, cell, enforced| {
        let mut row = row(server, cell, Some(enforced), 50, 1);
        row.receipt.backend = None;
        row
    };
    let rows = vec![
        told(THEM, "elsewhere", 4),
        told(US, "older", 3),
        told(THEM, "taken", 4),
        told(US, "told", 4),
    ];
    here.compare(&Rows::of_heard(rows, now), US, now);
    let unwritten = here.take_unwritten(now);
    assert_eq!(cells_of(&unwritten.ours), [("lost", 0), ("older", 0), ("taken", 0)]);
    assert_eq!(cells_of(&unwritten.nobodys), []);
    let late = now + seconds(60);
    here.compare(&Rows::of_heard(vec![told(THEM, "elsewhere", 4)], late), US, late);
    here.take_unwritten(late);
    here.sweep(late);
    assert!(here.take_unwritten(late).is_empty(), "it is theirs to let go of");
}

#[test]
fn a_word_comes_back_from_the_database_as_it_was() {
    let now = Instant::now();
    let everything = Word {
        subject: Arc::new(Subject::Everything),
        enforced: None,
        backend: Some(Backend::Iptables),
        error: Some("no such table".to_owned()),
        agent: Some(Uuid::from_u128(7)),
    };
    for word in [everything, word_about(&["a", "b"], Some(4)), word_about(&[], None)] {
        let receipt = rows::stored(("cell".to_owned(), word.clone(), seconds(5)));
        let server_silent = seconds(1);
        let heard = HeardReceipt { server: THEM.to_owned(), receipt, server_silent };
        let rows = Rows::of_heard(vec![heard], now);
        let row = rows.of("cell").unwrap();
        assert_eq!((&row.word, now - row.said, now - row.heard), (&word, seconds(5), seconds(1)));
    }
}

/// What is known at this moment, when the process has been up for so long.
fn known(here: &Here, rows: &Rows, up: Duration) -> Cells {
    let now = Instant::now();
    let cells = cells::all(here, rows, US, now - up, now);
    Cells { cells, leased: Some(0), are_here: true, up }
}

/// Whether that is all, when so many cells hold leases.
fn is_complete(cells: Cells, leased: usize) -> bool {
    Cells { leased: Some(leased), ..cells }.status(&snapshot(5), None).complete
}

#[test]
fn a_server_knows_when_it_may_not_know_every_cell_yet() {
    let (mut here, none, soon) = (Here::default(), Rows::default(), seconds(1));
    here.hear("one", word(None), Instant::now());
    assert!(!is_complete(known(&here, &none, soon), 2));
    assert!(!is_complete(known(&here, &none, seconds(60)), 2), "the other may be cut off");
    assert!(is_complete(known(&here, &none, FORGET_AFTER + soon), 2), "or gone");
    let rows = Rows::of_heard(vec![row(THEM, "two", None, 1, 0)], Instant::now());
    assert!(is_complete(known(&here, &rows, soon), 2), "it speaks to another server");
    let unread = Cells { leased: None, ..known(&here, &rows, FORGET_AFTER + soon) };
    assert!(!unread.status(&snapshot(5), None).complete, "others may have said something since");

    assert!(!is_complete(known(&here, &none, soon), 0));
    assert!(is_complete(known(&here, &none, seconds(10)), 0), "they have had the time");
    let nobody = Here::default();
    assert!(is_complete(known(&nobody, &none, seconds(10)), 0), "there is none");
    let elsewhere = |rows| Cells { are_here: false, ..known(&nobody, rows, seconds(10)) };
    assert!(!is_complete(elsewhere(&none), 0), "or it speaks to a server that keeps silent");
    assert!(is_complete(elsewhere(&rows), 0));
}

#[test]
fn a_cell_whose_server_was_killed_may_have_said_something_else_since() {
    let (mut here, now) = (Here::default(), Instant::now());
    let told_to = |server, silent| Rows::of_heard(vec![row(server, "one", None, 60, silent)], now);
    let (gone, soon, later) = (told_to("killed", 2), seconds(1), seconds(10));
    assert!(!is_complete(known(&here, &gone, soon), 1));
    assert!(is_complete(known(&here, &gone, later), 1), "it had the time to say so");
    let here_before = told_to(THEM, 2);
    assert!(is_complete(known(&here, &here_before, seconds(600)), 1));
    let overdue = told_to(THEM, 13);
    assert!(!is_complete(known(&here, &overdue, seconds(600)), 1));
    let is_gone = told_to(THEM, 26);
    assert!(is_complete(known(&here, &is_gone, seconds(600)), 1));
    let is_written_down = told_to(NOBODY, 26);
    assert!(is_complete(known(&here, &is_written_down, soon), 1));
    here.hear("one", word(None), now);
    assert!(is_complete(known(&here, &gone, soon), 1), "it came back");
}

#[test]
fn only_cells_that_ask_about_an_app_are_told_of() {
    let (mut here, now) = (Here::default(), Instant::now());
    here.hear("two", word_about(&["a", "b"], None), now);
    let everything = Word { subject: Arc::new(Subject::Everything), ..word(None) };
    here.hear("all", everything, now);
    here.hear("none", word_about(&[], None), now);
    let cells = |asked: Option<BTreeSet<AppGuid>>| -> Vec<String> {
        let Status { cells, .. } =
            known(&here, &Rows::default(), seconds(1)).status(&snapshot(5), asked.as_ref());
        cells.into_iter().map(|cell| cell.cell).collect()
    };
    assert_eq!(cells(None), ["all", "none", "two"]);
    assert_eq!(cells(Some(apps(&["b", "x"]))), ["all", "two"]);
    assert_eq!(cells(Some(apps(&["x"]))), ["all"]);
}

#[test]
fn revisions_of_another_life_or_still_to_come_are_no_receipt() {
    let enforced =
        |word: &Word, revision| word.enforced(&snapshot(revision)).map(|number| number.0);
    let later = word(Some(9));
    assert_eq!([5, 8, 9].map(|revision| enforced(&later, revision)), [None, None, Some(9)]);
    let foreign = Version { life: Life::new("other").unwrap(), ..version(9) };
    let foreign = Word { enforced: Some(foreign), ..word(None) };
    assert_eq!(enforced(&foreign, 9), None);
}

#[test]
fn cells_confirm_what_the_slowest_of_them_enforces() {
    let (mut here, now) = (Here::default(), Instant::now());
    let everything = |revision| Word { subject: Arc::new(Subject::Everything), ..word(revision) };
    let confirmed = |here: &Here, revision| {
        let all = cells::all(here, &Rows::default(), US, long_ago(now), now);
        cells::confirmed(&all, &snapshot(revision)).map(|revision| revision.0)
    };
    assert_eq!(confirmed(&here, 5), None);
    here.hear("one", everything(Some(5)), now);
    assert_eq!(confirmed(&here, 5), Some(5));
    assert_eq!(confirmed(&here, 7), Some(5), "7 concerns it");
    here.hear("two", everything(Some(6)), now);
    assert_eq!(confirmed(&here, 6), Some(5));
    here.hear("one", everything(Some(6)), now);
    assert_eq!(confirmed(&here, 6), Some(6));
    here.hear("new", everything(None), now);
    assert_eq!(confirmed(&here, 6), Some(0), "it may enforce anything");
}

#[test]
fn a_cell_whose_last_word_may_be_lost_confirms_no_more_than_it_said() {
    let now = Instant::now();
    let change = (Revision(6), Change::LeaseAdded(lease(9)));
    let later = snapshot(5).after(vec![change]).unwrap();
    let confirmed = |here: &Here, row: Option<HeardReceipt>, is_server_lost| {
        let mut rows = Rows::of_heard(row.into_iter().collect(), now);
        rows.is_server_lost = is_server_lost;
        let all = cells::all(here, &rows, US, long_ago(now), now);
        cells::confirmed(&all, &later).map(|revision| revision.0)
    };
    let none = Here::default();
    let told_to = |server, silent| Some(row(server, "one", Some(5), 600, silent));
    assert_eq!(confirmed(&none, told_to(THEM, 4), true), None, "they vouch for it");
    assert_eq!(confirmed(&none, told_to("killed", 40), true), Some(5));
    assert_eq!(confirmed(&none, told_to("killed", 40), false), Some(5), "what else became of it");
    assert_eq!(confirmed(&none, told_to(NOBODY, 0), false), Some(6), "nothing later concerns it");
    let just_left = Some(row(NOBODY, "one", Some(5), 30, 0));
    assert_eq!(confirmed(&none, just_left, false), Some(5), "it may be elsewhere by now");
    assert_eq!(confirmed(&none, told_to(NOBODY, 0), true), Some(5), "it may have spoken since");
    let unsaid = Some(row(NOBODY, "one", None, 600, 0));
    assert_eq!(confirmed(&none, unsaid, true), Some(0));

    let left = |ago: u64| {
        let mut here = Here::default();
        here.hear("one", word(Some(5)), now - seconds(ago));
        here.leave("one", None, now - seconds(ago));
        here
    };
    let mut held = left(60);
    held.hear("one", word(Some(5)), now);
    assert_eq!(confirmed(&held, told_to("killed", 40), true), Some(6), "it spoke again");
    assert_eq!(confirmed(&left(9), None, true), Some(6), "it is between two polls");
    assert_eq!(confirmed(&left(11), None, true), Some(5));
    assert_eq!(confirmed(&left(30), None, false), Some(5), "it may be elsewhere by now");
    assert_eq!(confirmed(&left(41), None, false), Some(6));
}

#[test]
fn a_server_that_ends_lets_go_of_all_cells_but_those_that_are_there() {
    let (mut here, now) = (Here::default(), Instant::now());
    here.hear("gone", word(Some(4)), now);
    here.leave("gone", None, now);
    here.hear("there", word(Some(4)), now);
    here.take_unwritten(now);
    here.part();
    let unwritten = here.take_unwritten(now);
    assert_eq!(
        (cells_of(&unwritten.ours), cells_of(&unwritten.nobodys)),
        (vec![], vec![("gone", 0)])
    );
    assert!(here.speaks_for_any());
    here.leave("there", None, now);
    here.part();
    assert!(!here.speaks_for_any());
}

#[tokio::test]
async fn a_cell_that_is_gone_is_not_waited_for_whatever_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let url = StoreUrl::Sqlite(dir.path().join("netman.db"));
    let store = policy_store::open(&url, &Options::default()).await.unwrap();
    let receipts = Receipts::new(Metrics::new());
    let _held = receipts.hear("one", None, word(None));
    let pool = LeasePool::new("10.255.0.0/16".parse().unwrap(), 24, LeasePool::EXPIRY).unwrap();
    let acquire = async |host: u8, ago| {
        let (cell, then) = ([10, 0, 16, host].into(), SystemTime::now() - ago);
        store.acquire_lease(&pool, cell, LeaseKind::Block, then).await.unwrap();
    };
    let is_complete =
        async || receipts.of_all_servers(&*store).await.status(&snapshot(5), None).complete;
    acquire(1, Duration::ZERO).await;
    acquire(2, FORGET_AFTER + seconds(1)).await;
    assert!(is_complete().await, "the second has not been there for a day");
    acquire(3, FORGET_AFTER - seconds(60)).await;
    assert!(!is_complete().await);
}
