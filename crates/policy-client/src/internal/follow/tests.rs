//! On a paused clock, against servers that follow a script: no time passes but what is told here.

mod story;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use policy::{Policy, Protocol, Tag, TaggedPolicy};

use super::*;

/// What servers will say, in order, whichever is asked, and what they were asked.
#[derive(Debug, Default)]
struct Script {
    replies: Mutex<VecDeque<(Duration, Result<Told, ClientError>)>>,
    asked: Mutex<Vec<Asked>>,
}

#[derive(Debug, Clone)]
struct Asked {
    server: usize,
    at: Instant,
    question: Question,
}

#[derive(Debug)]
struct Scripted {
    server: usize,
    script: Arc<Script>,
}

impl Server for Scripted {
    async fn told(&self, question: &Question) -> Result<Told, ClientError> {
        let asked = Asked { server: self.server, at: Instant::now(), question: question.clone() };
        self.script.asked.lock().unwrap().push(asked);
        let next = self.script.replies.lock().unwrap().pop_front();
        let Some((after, reply)) = next else { return std::future::pending().await };
        tokio::time::sleep(after).await;
        reply
    }
}

/// A cell that follows, and enforces at once what it is given.
struct Cell {
    follower: Follower<Scripted>,
    script: Arc<Script>,
    apps: BTreeSet<AppGuid>,
    enforced: Option<Version>,
    holds: BTreeSet<TaggedPolicy>,
}

const INTERVAL: Duration = Duration::from_secs(5);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Cell {
    fn beside(servers: usize) -> Self {
        let script = Arc::new(Script::default());
        let server = |server| Scripted { server, script: script.clone() };
        let settings = Settings { cell: "cell-1".into(), hold: HOLD, poll_interval: INTERVAL };
        let servers = (0..servers).map(server).collect();
        let follower = Follower::with_chance(servers, settings, Rng::with_seed(7));
        let (apps, holds) = (apps(&["web"]), BTreeSet::new());
        Self { follower, script, apps, enforced: None, holds }
    }

    fn will(&self, after: Duration, reply: Result<Told, ClientError>) {
        self.script.replies.lock().unwrap().push_back((after, reply));
    }

    async fn ask(&mut self) -> News {
        let words = ReceiptWords::default();
        let news = self.follower.ask(&self.apps, self.enforced.as_ref(), &words).await;
        if let News::Policies { all, version } = &news {
            self.holds = all.iter().cloned().collect();
            self.enforced = version.clone();
        }
        news
    }

    fn asked(&self) -> Vec<Asked> {
        self.script.asked.lock().unwrap().clone()
    }

    /// The pauses between the end of an answer that came at once and the question after it.
    fn pauses(&self) -> Vec<Duration> {
        let asked = self.asked();
        asked.windows(2).map(|two| two[1].at - two[0].at).collect()
    }

    fn last(&self) -> Asked {
        self.asked().pop().unwrap()
    }
}

/// Timers have milliseconds.
fn is_about(was: Duration, due: Duration) -> bool {
    was.abs_diff(due) <= Duration::from_millis(1)
}

fn apps(names: &[&str]) -> BTreeSet<AppGuid> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn tagged(source: &str) -> TaggedPolicy {
    TaggedPolicy {
        policy: Policy {
            source: source.parse().unwrap(),
            destination: "web".parse().unwrap(),
            protocol: Protocol::Tcp,
            ports: "8080".parse().unwrap(),
        },
        source_tag: Tag::new(u32::from(source.as_bytes()[0])).unwrap(),
        destination_tag: Tag::new(1).unwrap(),
    }
}

fn told(answer: Answer, wait: Option<u64>) -> Result<Told, ClientError> {
    Ok(Told { answer, wait: wait.map(seconds), rest: Duration::ZERO, refused: None, bytes: 100 })
}

fn whole(sources: &[&str], at: &str) -> Result<Told, ClientError> {
    let policies = sources.iter().map(|source| tagged(source)).collect();
    told(Answer::Policies { policies, version: Some(version(at)) }, Some(55))
}

fn unchanged(at: &str) -> Result<Told, ClientError> {
    told(Answer::NotModified(version(at)), Some(55))
}

fn delta(total: usize, removed: &[&str], added: &[&str], at: &str) -> Result<Told, ClientError> {
    let list = |sources: &[&str]| sources.iter().map(|source| tagged(source)).collect();
    let delta = Delta { total, removed: list(removed), added: list(added) };
    told(Answer::Changes { delta, version: version(at) }, Some(55))
}

fn refused(status: u16) -> Result<Told, ClientError> {
    Err(ClientError::Refused { request: "GET".into(), status, reason: "told to".into() })
}

#[tokio::test(start_paused = true)]
async fn a_question_claims_what_is_enforced_and_is_held_again_without_a_pause() {
    let mut cell = Cell::beside(1);
    cell.will(Duration::ZERO, whole(&["a"], "x.7"));
    cell.will(HOLD, unchanged("x.7"));
    cell.will(HOLD, unchanged("x.7"));
    assert!(matches!(cell.ask().await, News::Policies { .. }));
    assert!(matches!(cell.ask().await, News::Unchanged));
    assert!(matches!(cell.ask().await, News::Unchanged));
    assert_eq!(cell.pauses(), [Duration::ZERO, HOLD]);
    let Asked { question, .. } = cell.last();
    assert_eq!((question.known, question.wait), (Some(version("x.7")), Some(HOLD)));
}

#[tokio::test(start_paused = true)]
async fn whose_receipt_is_refused_knows_why_until_it_is_not() {
    let mut cell = Cell::beside(1);
    let why = || Some("two agents say they are cell-1".to_owned());
    let refusing = |told: Result<Told, ClientError>| Ok(Told { refused: why(), ..told.unwrap() });
    cell.will(Duration::ZERO, refusing(whole(&["a"], "x.7")));
    cell.will(Duration::ZERO, refused(500));
    cell.will(HOLD, unchanged("x.7"));
    for expected in [why(), why(), None] {
        cell.ask().await;
        assert_eq!(cell.follower.receipt_refused(), expected.as_deref());
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_told_with_many_others_rests_unless_there_is_something_else_to_ask() {
    let rest = Duration::from_millis(500);
    let with_many = |told: Result<Told, ClientError>| Ok(Told { rest, ..told.unwrap() });
    let mut cell = Cell::beside(1);
    cell.will(Duration::ZERO, whole(&["a"], "x.7"));
    for revision in 8..30 {
        cell.will(Duration::ZERO, with_many(delta(1, &[], &[], &format!("x.{revision}"))));
    }
    for _ in 7..30 {
        assert!(matches!(cell.ask().await, News::Policies { .. }));
    }
    let pauses = cell.pauses().split_off(1);
    assert!(pauses.iter().all(|pause| *pause <= rest + Duration::from_millis(1)), "{pauses:?}");
    let average = pauses.iter().sum::<Duration>() / 21;
    assert!((rest / 4..rest * 3 / 4).contains(&average), "{pauses:?}");

    cell.apps = apps(&["web", "db"]);
    cell.will(Duration::ZERO, whole(&["a"], "x.40"));
    let asked = Instant::now();
    cell.ask().await;
    assert_eq!(asked.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_is_left_at_once_and_the_next_is_kept() {
    let mut cell = Cell::beside(2);
    cell.will(Duration::ZERO, whole(&["a"], "x.7"));
    cell.will(Duration::ZERO, refused(500));
    cell.will(Duration::ZERO, unchanged("x.7"));
    cell.ask().await;
    let News::Failed { retry_in, .. } = cell.ask().await else { panic!("it was refused") };
    assert!(retry_in <= Duration::from_millis(250), "{retry_in:?}");
    cell.ask().await;
    let servers: Vec<_> = cell.asked().iter().map(|asked| asked.server).collect();
    assert_eq!((servers[0], servers[1], servers[2]), (servers[0], servers[0], 1 - servers[0]));
    assert!(is_about(cell.pauses()[1], retry_in), "the follower waits by itself");
    assert_eq!(cell.last().question.known, Some(version("x.7")), "a version is every server's");
}

#[tokio::test(start_paused = true)]
async fn cells_begin_at_different_servers_and_each_at_its_own() {
    let mut homes = [0; 3];
    for cell in 0..300 {
        let cell = format!("cell-{cell}");
        assert_eq!(home(&cell, 3), home(&cell, 3));
        homes[home(&cell, 3)] += 1;
    }
    assert!(homes.iter().all(|cells| (60..140).contains(cells)), "{homes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_given_back_is_asked_of_the_next_server() {
    let mut cell = Cell::beside(2);
    cell.will(Duration::ZERO, whole(&["a"], "x.7"));
    cell.will(seconds(20), unchanged("x.7"));
    cell.will(HOLD, unchanged("x.7"));
    cell.ask().await;
    assert!(matches!(cell.ask().await, News::Unchanged));
    let first = cell.last().server;
    assert!(matches!(cell.ask().await, News::Unchanged));
    assert_eq!((cell.last().server, cell.follower.counts().given_back), (1 - first, 1));
    assert_eq!(cell.last().question.wait, Some(HOLD), "a server that stops is no proxy");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_cuts_is_learned_from() {
    let mut cell = Cell::beside(1);
    cell.will(Duration::ZERO, whole(&["a"], "x.7"));
    for _ in 0..2 {
        cell.will(seconds(30), refused(504));
    }
    cell.will(seconds(27), told(Answer::NotModified(version("x.7")), Some(27)));
    for _ in 0..4 {
        cell.ask().await;
    }
    assert_eq!(cell.last().question.wait, Some(HOLD / 2));
    assert_eq!(cell.follower.counts().cuts, 2);
}

#[tokio::test(start_paused = true)]
async fn who_looks_in_is_not_held_until_an_answer_and_learns_nothing_of_holds() {
    let mut cell = Cell::beside(1);
    cell.will(Duration::ZERO, whole(&["a"], "x.7"));
    cell.ask().await;
    // A proxy cuts, as above, but each time it is looked in between.
    for _ in 0..2 {
        cell.will(seconds(30), refused(504));
        cell.will(Duration::ZERO, refused(503));
        cell.will(Duration::ZERO, told(Answer::NotModified(version("x.7")), None));
        assert!(matches!(cell.ask().await, News::Failed { .. }));
        cell.follower.look_in();
        assert!(matches!(cell.ask().await, News::Failed { .. }));
        assert_eq!(cell.last().question.wait, None);
        assert!(matches!(cell.ask().await, News::Unchanged));
        assert_eq!(cell.last().question.wait, None);
    }
    cell.will(seconds(27), told(Answer::NotModified(version("x.7")), Some(27)));
    let asked = Instant::now();
    cell.ask().await;
    assert_eq!(cell.last().question.wait, Some(HOLD / 2));
    assert_eq!(asked.elapsed(), seconds(27), "there is no pause after looking in");
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_where_only_short_questions_are_answered() {
    let mut cell = Cell::beside(1);
    cell.will(Duration::ZERO, whole(&["a"], "x.7"));
    cell.ask().await;
    let began = Instant::now();
    let mut questions = 0;
    while began.elapsed() < seconds(60) {
        cell.will(Duration::ZERO, refused(503));
        cell.will(Duration::ZERO, told(Answer::NotModified(version("x.7")), None));
        assert!(matches!(cell.ask().await, News::Failed { .. }));
        cell.follower.look_in();
        assert!(matches!(cell.ask().await, News::Unchanged));
        questions += 2;
    }
    assert!(questions < 60, "{questions} questions in a minute");
}

#[tokio::test(start_paused = true)]
async fn an_older_state_that_is_denied_in_between_is_not_believed() {
    let mut cell = Cell::beside(1);
    cell.will(Duration::ZERO, whole(&["a"], "x.7"));
    cell.ask().await;
    for _ in 0..4 {
        cell.will(Duration::ZERO, whole(&["a", "b"], "x.6"));
        cell.will(Duration::ZERO, refused(503));
        cell.will(Duration::ZERO, told(Answer::NotModified(version("x.7")), None));
        assert!(matches!(cell.ask().await, News::Unchanged));
        assert!(matches!(cell.ask().await, News::Failed { .. }));
        cell.follower.look_in();
        assert!(matches!(cell.ask().await, News::Unchanged));
    }
}

#[tokio::test(start_paused = true)]
async fn where_every_hold_is_cut_the_server_is_asked_now_and_then() {
    let mut cell = Cell::beside(1);
    cell.will(Duration::ZERO, whole(&["a"], "x.7"));
    for _ in 0..10 {
        cell.will(seconds(3), refused(502));
    }
    for _ in 0..3 {
        cell.will(Duration::ZERO, told(Answer::NotModified(version("x.7")), None));
    }
    for _ in 0..14 {
        cell.ask().await;
    }
    assert_eq!(cell.last().question.wait, None);
    for pause in &cell.pauses()[11..] {
        assert!((INTERVAL / 2..=INTERVAL).contains(pause), "{pause:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_server_is_asked_at_the_interval() {
    let mut cell = Cell::beside(1);
    for _ in 0..2 {
        let policies = vec![tagged("a")];
        cell.will(Duration::ZERO, told(Answer::Policies { policies, version: None }, None));
    }
    for _ in 0..2 {
        let news = cell.ask().await;
        assert!(matches!(news, News::Policies { version: None, .. }), "{news:?}");
    }
    assert!(cell.pauses()[0] >= INTERVAL / 2, "{:?}", cell.pauses());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_learns_what_is_known_is_asked_at_the_interval() {
    let mut cell = Cell::beside(1);
    for at in ["x.7", "x.7", "x.7", "x.8"] {
        cell.will(Duration::ZERO, whole(&["a"], at));
    }
    assert!(matches!(cell.ask().await, News::Policies { .. }));
    assert!(matches!(cell.ask().await, News::Unchanged));
    assert!(matches!(cell.ask().await, News::Unchanged));
    assert!(matches!(cell.ask().await, News::Policies { .. }), "a change is one all the same");
    assert!(cell.pauses()[1..].iter().all(|pause| *pause >= INTERVAL / 2), "{:?}", cell.pauses());
}

#[tokio::test(start_paused = true)]
async fn other_apps_are_asked_about_without_a_pause() {
    let mut cell = Cell::beside(1);
    cell.will(Duration::ZERO, told(Answer::Policies { policies: vec![], version: None }, None));
    cell.will(Duration::ZERO, whole(&["a"], "x.7"));
    cell.ask().await;
    cell.apps = apps(&["web", "db"]);
    cell.ask().await;
    assert_eq!(cell.pauses(), [Duration::ZERO]);
}

#[tokio::test(start_paused = true)]
async fn an_older_answer_is_not_followed_unless_it_stands() {
    let mut cell = Cell::beside(1);
    cell.will(Duration::ZERO, whole(&["a", "b"], "x.7"));
    cell.will(Duration::ZERO, whole(&["a"], "x.6"));
    cell.will(Duration::ZERO, whole(&["a", "b", "c"], "x.8"));
    cell.ask().await;
    assert!(matches!(cell.ask().await, News::Unchanged));
    assert!(matches!(cell.ask().await, News::Policies { .. }));
    assert_eq!(cell.holds.len(), 3, "the server had caught up");

    for _ in 0..3 {
        cell.will(Duration::ZERO, whole(&["a"], "x.6"));
    }
    assert!(matches!(cell.ask().await, News::Unchanged));
    assert!(matches!(cell.ask().await, News::Unchanged));
    assert!(matches!(cell.ask().await, News::Policies { .. }));
    assert_eq!((cell.holds.len(), cell.enforced.clone()), (1, Some(version("x.6"))));
    let pauses: Duration = cell.pauses()[3..].iter().sum();
    assert!((Duration::from_millis(1500)..=seconds(3)).contains(&pauses), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn an_older_answer_is_checked_at_another_server() {
    let mut cell = Cell::beside(2);
    cell.will(Duration::ZERO, whole(&["a", "b"], "x.7"));
    cell.will(Duration::ZERO, whole(&["a"], "x.6"));
    cell.will(Duration::ZERO, unchanged("x.7"));
    cell.ask().await;
    assert!(matches!(cell.ask().await, News::Unchanged));
    let late = cell.last().server;
    assert!(matches!(cell.ask().await, News::Unchanged));
    assert_ne!(cell.last().server, late);
    assert_eq!((cell.holds.len(), cell.enforced.clone()), (2, Some(version("x.7"))));
}

#[tokio::test(start_paused = true)]
async fn an_answer_about_more_apps_must_not_be_older_either() {
    let mut cell = Cell::beside(1);
    cell.will(Duration::ZERO, whole(&["a", "b"], "x.7"));
    cell.will(Duration::ZERO, whole(&["a"], "x.6"));
    cell.ask().await;
    (cell.apps, cell.enforced) = (apps(&["web", "db"]), None);
    assert!(matches!(cell.ask().await, News::Unchanged));
    assert_eq!(cell.holds.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn another_life_is_followed_whatever_its_revision() {
    let mut cell = Cell::beside(1);
    cell.will(Duration::ZERO, whole(&["a", "b"], "x.7"));
    cell.will(Duration::ZERO, whole(&["a"], "y.2"));
    cell.will(Duration::ZERO, whole(&["a"], "x.7"));
    cell.ask().await;
    assert!(matches!(cell.ask().await, News::Policies { .. }));
    assert_eq!(cell.enforced, Some(version("y.2")));
    cell.ask().await;
    assert!(cell.pauses()[1] >= SIGHT_AGAIN.0, "two databases behind one address are no race");
}

#[tokio::test(start_paused = true)]
async fn changes_are_applied_to_what_is_enforced() {
    let mut cell = Cell::beside(1);
    cell.will(Duration::ZERO, whole(&["a", "b"], "x.7"));
    cell.will(seconds(9), delta(2, &["a", "never"], &["c", "b"], "x.9"));
    cell.ask().await;
    assert!(!cell.last().question.changes, "to what?");
    cell.ask().await;
    assert!(cell.last().question.changes);
    assert_eq!(cell.holds, BTreeSet::from([tagged("b"), tagged("c")]));
    assert_eq!(cell.enforced, Some(version("x.9")));
    let counts = cell.follower.counts();
    assert_eq!((counts.wholes, counts.deltas, counts.unusable_deltas), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn changes_that_do_not_add_up_are_dropped_and_the_whole_is_asked_for() {
    let unreadable = ClientError::Changes {
        request: "GET".into(),
        source: crate::internal::UnusableChanges::Header("Delta-Base"),
    };
    for bad in [delta(3, &["a"], &["c"], "x.9"), Err(unreadable)] {
        let mut cell = Cell::beside(1);
        cell.will(Duration::ZERO, whole(&["a", "b"], "x.7"));
        cell.will(seconds(9), bad);
        cell.will(Duration::ZERO, whole(&["b", "c", "d"], "x.9"));
        cell.will(seconds(9), delta(2, &["d"], &[], "x.10"));
        cell.ask().await;
        assert!(matches!(cell.ask().await, News::Policies { .. }));
        let Asked { question, .. } = cell.last();
        assert_eq!((question.known, question.changes), (None, false), "claims nothing");
        assert_eq!(cell.holds.len(), 3);
        assert_eq!(cell.follower.counts().unusable_deltas, 1);
        cell.ask().await;
        assert!(cell.last().question.changes, "the next may be changes again");
        assert_eq!(cell.enforced, Some(version("x.10")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_resumes_with_what_was_kept() {
    let mut cell = Cell::beside(1);
    let policies = [tagged("a"), tagged("b")].into_iter().collect();
    let given = Given { apps: cell.apps.clone(), policies, version: Some(version("x.7")) };
    cell.follower.resume(given);
    cell.enforced = Some(version("x.7"));
    cell.will(Duration::ZERO, delta(1, &["a"], &[], "x.8"));
    cell.ask().await;
    assert!(cell.last().question.changes);
    assert_eq!(cell.holds, BTreeSet::from([tagged("b")]));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_enforced_is_not_fetched_over_and_over() {
    let mut cell = Cell::beside(1);
    let mut pauses = Vec::new();
    for _ in 0..9 {
        cell.will(Duration::ZERO, whole(&["a"], "x.7"));
        cell.ask().await;
        cell.enforced = None;
        pauses.push(cell.follower.not_enforced());
    }
    assert!(cell.pauses().into_iter().zip(&pauses).all(|(was, due)| is_about(was, *due)));
    assert!(pauses[0] < Duration::from_millis(200) && pauses[8] >= INTERVAL / 2, "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_taken_back_changes_nothing() {
    let mut cell = Cell::beside(2);
    cell.will(Duration::ZERO, whole(&["a"], "x.7"));
    cell.ask().await;
    let counts = cell.follower.counts();
    tokio::time::timeout(seconds(3), cell.ask()).await.unwrap_err();
    assert_eq!(cell.follower.counts(), counts);
    cell.will(HOLD, unchanged("x.7"));
    cell.ask().await;
    assert_eq!(cell.pauses(), [Duration::ZERO, seconds(3)]);
}
