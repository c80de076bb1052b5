//! Agents that say that they are one cell.

use super::*;

/// What the agent of this letter says.
fn word_of(agent: char, names: &[&str], enforced: Option<u64>) -> Word {
    Word { agent: name_of(agent), ..word_about(names, enforced) }
}

fn name_of(agent: char) -> Option<Uuid> {
    Some(Uuid::from_u128(agent.into()))
}

/// The error of the one cell, what it enforces, and whether it is said to ask about each of two apps.
fn of_the_cell(here: &Here, rows: &Rows, now: Instant) -> (Option<String>, Option<u64>, [bool; 2]) {
    let mut all = cells::all(here, rows, US, long_ago(now), now);
    let asks = ["a", "b"].map(|app| all[0].is_concerned(Some(&apps(&[app]))));
    let status = all.remove(0).status(&snapshot(9));
    (status.error, status.enforced, asks)
}

const SEVERAL: &str = "two agents say they are one";

#[test]
fn a_cell_of_two_agents_confirms_nothing_until_one_is_gone() {
    let (mut here, now) = (Here::default(), Instant::now());
    let none = Rows::default();
    let mut says = |agent, app, second| {
        let now = now + seconds(second);
        let Heard { are_several, .. } = here.hear("one", word_of(agent, &[app], Some(9)), now);
        here.leave("one", name_of(agent), now);
        (are_several, of_the_cell(&here, &none, now), here.take_unwritten(now).len())
    };
    assert_eq!(says('A', "a", 0), (None, (None, Some(9), [true, false]), 1));
    assert_eq!(
        says('B', "b", 1),
        (None, (None, Some(9), [false, true]), 1),
        "it was started again"
    );
    let both = || (Some(SEVERAL.to_owned()), None, [true, true]);
    assert_eq!(says('A', "a", 2), (Some(true), both(), 1));
    assert_eq!(says('B', "b", 3), (None, both(), 0), "all of that is written");
    assert_eq!(says('A', "a", 50), (None, both(), 0));
    assert_eq!(says('A', "a", 64), (Some(false), (None, Some(9), [true, false]), 1));
}

#[test]
fn agents_that_tell_no_name_are_one_as_ever() {
    let (mut here, now) = (Here::default(), Instant::now());
    for enforced in [4, 9, 4, 9] {
        here.hear("one", word(Some(enforced)), now);
    }
    assert_eq!(of_the_cell(&here, &Rows::default(), now), (None, Some(9), [true, false]));
}

#[test]
fn two_agents_that_speak_to_two_servers_are_told_apart_by_what_is_written() {
    let (mut here, began) = (Here::default(), Instant::now());
    let at = |second| began + seconds(second);
    // What they have written of the cell is read, and then the agent that is here speaks again.
    let read = |here: &mut Here, agent, said: u64, second: u64| {
        let mut row = row(THEM, "one", Some(9), second - said, 1);
        (row.receipt.agent, row.receipt.apps) = (name_of(agent), Some(apps(&["b"])));
        let rows = Rows::of_heard(vec![row], at(second));
        let noticed = here.compare(&rows, US, at(second)).len();
        let heard = here.hear("one", word_of('A', &["a"], Some(9)), at(second + 5));
        (noticed, heard.are_several, of_the_cell(here, &rows, at(second + 5)))
    };
    here.hear("one", word_of('A', &["a"], Some(9)), at(0));
    here.hear("one", word_of('A', &["a"], Some(9)), at(30));
    let alone = || (None, Some(9), [true, false]);
    assert_eq!(read(&mut here, 'A', 20, 40), (0, None, alone()), "it was there for a while");
    let both = || (Some(SEVERAL.to_owned()), None, [true, true]);
    assert_eq!(read(&mut here, 'B', 50, 60), (0, Some(true), both()));
    here.take_unwritten(at(65));
    assert_eq!(read(&mut here, 'B', 75, 80), (0, None, both()));
    assert_eq!(here.take_unwritten(at(85)).ours[0].1.agent, name_of('A'), "they are to know, too");
    here.hear("one", word_of('A', &["a"], Some(9)), at(150));
    assert_eq!(of_the_cell(&here, &Rows::default(), at(150)), alone());
}

#[test]
fn a_question_held_for_one_that_is_gone_says_nothing_against_the_next() {
    let (mut here, began) = (Here::default(), Instant::now());
    let at = |second| began + seconds(second);
    here.hear("one", word_of('A', &["a"], Some(4)), at(0));
    here.take_unwritten(at(0));
    // Its machine was reset, nobody told this server, and it is up again and asks another.
    for second in [60, 80, 100] {
        let mut row = row(THEM, "one", Some(9), second - 30, 0);
        row.receipt.agent = name_of('B');
        let rows = Rows::of_heard(vec![row], at(second));
        assert!(here.compare(&rows, US, at(second)).is_empty());
        assert!(here.take_unwritten(at(second)).is_empty(), "it is left to them");
    }
    let heard = here.hear("one", word_of('A', &["a"], Some(4)), at(110));
    assert_eq!(heard.are_several, Some(true), "unless it speaks");
    assert_eq!(here.take_unwritten(at(110)).ours.len(), 1);
}

#[test]
fn what_one_of_several_was_told_says_nothing_of_another() {
    let (mut here, now) = (Here::default(), Instant::now());
    let told = Told { at: version(9), total: 3 };
    let mut says = |agent, second| {
        let now = now + seconds(second);
        let word = word_of(agent, &["a"], Some(9));
        here.hear("one", word, now);
        let before = here.told("one");
        let subject = here.cells()["one"].word.subject.clone();
        here.tell("one", &subject, told.clone());
        here.leave("one", name_of(agent), now);
        before
    };
    assert_eq!((says('A', 0), says('A', 1)), (None, Some(told.clone())));
    assert_eq!((says('B', 2), says('A', 3), says('A', 4)), (Some(told.clone()), None, None));
}

/// A question that was taken back, and is read after the next one.
#[test]
fn what_was_said_before_the_last_word_says_nothing_of_where_the_cell_is_or_how_many_there_are() {
    let receipts = Receipts::new(Metrics::new());
    let says = |agent, question, enforced| {
        receipts.hear("one", Some(question), word_of(agent, &["a"], Some(enforced)))
    };
    drop(says('A', 9, 9));
    drop(says('B', 0, 9));
    let late = says('B', 1, 8);
    let later = says('B', 3, 9);
    let overtaken = says('B', 2, 4);
    assert!(overtaken.is_overtaken && overtaken.told.is_none() && !later.is_overtaken);
    drop((late, later));
    let held = || receipts.here().cells()["one"].presence.is_held();
    assert!(!held(), "nobody waits for that one");
    drop(overtaken);
    assert!(!held());
    let word = receipts.here().cells()["one"].word.clone();
    assert_eq!(word, word_of('B', &["a"], Some(9)));
    assert!(!receipts.here().are_several("one"));
}
