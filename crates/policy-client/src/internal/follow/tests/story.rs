//! Any order of changes, questions and accidents: what is given is always what was so at that version,
//! never older than before, and in the end what is so now.

use fastrand::Rng;
use proptest::prelude::*;
use tokio::time::timeout;

use super::*;

/// What may happen.
#[derive(Debug, Clone)]
enum Event {
    /// These are the policies from now on; servers hear of it later.
    Change(BTreeSet<u8>),
    /// A server hears of all changes so far.
    CatchUp(usize),
    /// The cell asks, and this happens to the question.
    Ask(Mood),
}

#[derive(Debug, Clone, Copy)]
enum Mood {
    Well,
    Refused,
    Cut,
    /// Changes are told wrong.
    Confused,
    /// The question comes without what is known.
    Stripped,
}

/// All that ever was, by revision, and how far each server has come.
#[derive(Debug, Default)]
struct History {
    lists: Vec<BTreeSet<TaggedPolicy>>,
    heard: Vec<usize>,
    mood: Option<Mood>,
}

#[derive(Debug)]
struct Lagging {
    server: usize,
    history: Arc<Mutex<History>>,
}

impl Server for Lagging {
    async fn told(&self, question: &Question) -> Result<Told, ClientError> {
        // An accident befalls one question; if that is asked again at once, all is well.
        let mood = self.history.lock().unwrap().mood.take().unwrap_or(Mood::Well);
        match mood {
            Mood::Refused => return refused(500),
            Mood::Cut => {
                tokio::time::sleep(seconds(2)).await;
                return refused(502);
            }
            _ => {}
        }
        let known = question.known.as_ref().filter(|_| !matches!(mood, Mood::Stripped));
        let known = known.map(|known| usize::try_from(known.revision.0).unwrap());
        let now = self.history.lock().unwrap().heard[self.server];
        if known == Some(now) {
            let wait = question.wait.unwrap_or_default();
            tokio::time::sleep(wait).await;
            return told(Answer::NotModified(at(now)), question.wait.map(|wait| wait.as_secs()));
        }
        let history = self.history.lock().unwrap();
        let list = &history.lists[now];
        match known.filter(|known| *known < now && question.changes) {
            Some(known) => {
                let before = &history.lists[known];
                let since = &history.lists[known..now];
                // As servers do: whatever was mentioned since, by whether it is there now.
                let removed = since.iter().flatten().filter(|policy| !list.contains(policy));
                let added = list.difference(before);
                let delta = Delta {
                    total: list.len() + usize::from(matches!(mood, Mood::Confused)),
                    removed: removed.cloned().collect(),
                    added: added.cloned().collect(),
                };
                told(Answer::Changes { delta, version: at(now) }, Some(55))
            }
            None => {
                let policies = list.iter().cloned().collect();
                told(Answer::Policies { policies, version: Some(at(now)) }, Some(55))
            }
        }
    }
}

fn at(revision: usize) -> Version {
    version(&format!("life.{revision}"))
}

fn list(letters: &BTreeSet<u8>) -> BTreeSet<TaggedPolicy> {
    letters.iter().map(|letter| tagged(&char::from(*letter).to_string())).collect()
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let mood = prop_oneof![
        4 => Just(Mood::Well),
        1 => Just(Mood::Refused),
        1 => Just(Mood::Cut),
        1 => Just(Mood::Confused),
        1 => Just(Mood::Stripped),
    ];
    let event = prop_oneof![
        2 => prop::collection::btree_set(b'a'..b'h', 0..6).prop_map(Event::Change),
        2 => (0usize..2).prop_map(Event::CatchUp),
        4 => mood.prop_map(Event::Ask),
    ];
    prop::collection::vec(event, 1..40)
}

/// A cell in the middle of it.
struct Hero {
    follower: Follower<Lagging>,
    history: Arc<Mutex<History>>,
    enforced: Option<Version>,
    holds: BTreeSet<TaggedPolicy>,
    /// How often in a row an older state was answered.
    behind: u32,
}

impl Hero {
    fn new(chance: u64) -> Self {
        let history = History { lists: vec![BTreeSet::new()], heard: vec![0, 0], mood: None };
        let history = Arc::new(Mutex::new(history));
        let server = |server| Lagging { server, history: history.clone() };
        let settings = Settings { cell: "hero".into(), hold: HOLD, poll_interval: INTERVAL };
        let servers = vec![server(0), server(1)];
        let follower = Follower::with_chance(servers, settings, Rng::with_seed(chance));
        Self { follower, history, enforced: None, holds: BTreeSet::new(), behind: 0 }
    }

    async fn ask(&mut self) {
        let before = self.follower.counts();
        let (apps, words) = (apps(&["web"]), ReceiptWords::default());
        let asked = self.follower.ask(&apps, self.enforced.as_ref(), &words);
        let news = timeout(seconds(600), asked).await.expect("every question ends");
        let after = self.follower.counts();
        match (after.older > before.older, &news) {
            (true, _) => self.behind += 1,
            // Of what is older, a question that came to nothing says nothing.
            (false, News::Failed { .. }) => {}
            (false, _) => self.behind = 0,
        }
        let News::Policies { all, version } = news else { return };
        let version = version.expect("these servers have versions");
        if let Some(enforced) = &self.enforced {
            let stands = self.behind >= 3;
            assert!(version.includes(enforced) || stands, "{version} after {enforced}");
        }
        self.holds = all.iter().cloned().collect();
        let revision = usize::try_from(version.revision.0).unwrap();
        assert_eq!(self.holds, self.history.lock().unwrap().lists[revision], "at {version}");
        self.enforced = Some(version);
    }

    async fn live(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Change(letters) => {
                    self.history.lock().unwrap().lists.push(list(&letters));
                }
                Event::CatchUp(server) => self.catch_up(server),
                Event::Ask(mood) => {
                    self.history.lock().unwrap().mood = Some(mood);
                    self.ask().await;
                }
            }
        }
        (0..2).for_each(|server| self.catch_up(server));
        self.history.lock().unwrap().mood = None;
        for _ in 0..2 {
            self.ask().await;
        }
        let history = self.history.lock().unwrap();
        assert_eq!(Some(&self.holds), history.lists.last());
        assert_eq!(self.enforced, Some(at(history.lists.len() - 1)));
    }

    fn catch_up(&self, server: usize) {
        let mut history = self.history.lock().unwrap();
        history.heard[server] = history.lists.len() - 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_happens_the_cell_ends_with_what_is_so(events in events(), chance: u64) {
        let paused = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        paused.block_on(Hero::new(chance).live(events));
    }
}
