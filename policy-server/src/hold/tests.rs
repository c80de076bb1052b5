//! Everything that may happen to a poll, in any order, on a clock that runs only when all wait.

use std::{
    collections::BTreeSet,
    sync::{Arc, Barrier, Mutex, MutexGuard},
};

use policy::{AppGuid, Life, Policy, Protocol, Revision, Tag, TagLength, TaggedPolicy};
use policy_store::{Change, State};
use proptest::prelude::*;
use tokio::{
    sync::Notify,
    task::{JoinHandle, yield_now},
    time::sleep,
};

use super::*;
use crate::snapshot::{
    Subject, Touched,
    feed::{self, Source},
};

const APPS: [&str; 5] = ["a", "b", "c", "d", "e"];
const WAIT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
enum Step {
    /// A policy comes, or goes if it is there.
    Change {
        source: usize,
        destination: usize,
        port: u16,
    },
    /// Somebody changes one who writes no log.
    ChangeUnlogged {
        source: usize,
        destination: usize,
        port: u16,
    },
    /// A server looks at the database.
    Look(usize),
    /// A server cannot reach the database, or can again.
    Cut(usize, bool),
    Restart(usize),
    /// The agent goes to a server.
    Failover(usize),
    /// The agent hangs up, and asks again.
    HangUp,
    Pass(Duration),
}

fn step() -> impl Strategy<Value = Step> {
    let policy = || (0..APPS.len(), 0..APPS.len(), 1u16..3);
    let server = || 0..2usize;
    prop_oneof![
        6 => policy().prop_map(|(source, destination, port)| {
            Step::Change { source, destination, port }
        }),
        1 => policy().prop_map(|(source, destination, port)| {
            Step::ChangeUnlogged { source, destination, port }
        }),
        4 => server().prop_map(Step::Look),
        1 => (server(), any::<bool>()).prop_map(|(server, cut)| Step::Cut(server, cut)),
        1 => server().prop_map(Step::Restart),
        2 => server().prop_map(Step::Failover),
        1 => Just(Step::HangUp),
        3 => (0u64..8_000).prop_map(|millis| Step::Pass(Duration::from_millis(millis))),
    ]
}

/// Policies at every revision.
#[derive(Default)]
struct Database {
    at: Vec<BTreeSet<TaggedPolicy>>,
    log: Vec<(Revision, Change)>,
    compacted: Revision,
}

impl Database {
    fn change(&mut self, source: usize, destination: usize, port: u16, logged: bool) {
        let policy = tagged(source, destination, port);
        let revision = Revision(self.at.len() as u64);
        let mut now = self.now().clone();
        let change = if now.remove(&policy) {
            Change::PolicyRemoved(policy)
        } else {
            now.insert(policy.clone());
            Change::PolicyAdded(policy)
        };
        self.at.push(now);
        if logged {
            self.log.push((revision, change));
        } else {
            self.log.clear();
            self.compacted = revision;
        }
    }

    fn now(&self) -> &BTreeSet<TaggedPolicy> {
        self.at.last().unwrap()
    }

    fn state(&self) -> State {
        state(self)
    }

    /// What agents are to have at `version`.
    fn wanted(&self, version: &Version) -> BTreeSet<TaggedPolicy> {
        let concerns = |tagged: &&TaggedPolicy| {
            let Policy { source, destination, .. } = &tagged.policy;
            asked().contains(source) || asked().contains(destination)
        };
        self.at[version.revision.0 as usize].iter().filter(concerns).cloned().collect()
    }
}

fn version(revision: usize) -> Version {
    Version { life: Life::new("life").unwrap(), revision: Revision(revision as u64) }
}

fn state(database: &Database) -> State {
    State {
        version: version(database.at.len() - 1),
        policies: database.now().iter().cloned().collect(),
        leases: Vec::new(),
        security_groups: None,
        log: database.log.clone(),
        compacted: database.compacted,
    }
}

fn tagged(source: usize, destination: usize, port: u16) -> TaggedPolicy {
    TaggedPolicy {
        policy: Policy {
            source: APPS[source].parse().unwrap(),
            destination: APPS[destination].parse().unwrap(),
            protocol: Protocol::Tcp,
            ports: port.to_string().parse().unwrap(),
        },
        source_tag: Tag::new(source as u32 + 1).unwrap(),
        destination_tag: Tag::new(destination as u32 + 1).unwrap(),
    }
}

fn asked() -> BTreeSet<AppGuid> {
    APPS[..2].iter().map(|name| name.parse().unwrap()).collect()
}

/// One of two servers on the database.
struct Server {
    feed: Feed,
    source: Arc<Source>,
    shutdown: CancellationToken,
    cut: Arc<Mutex<bool>>,
    tasks: [JoinHandle<()>; 2],
}

impl Server {
    fn start(database: &Arc<Mutex<Database>>) -> Self {
        let first = Snapshot::of(database.lock().unwrap().state(), TagLength::DEFAULT);
        let (feed, source) = feed::joined(first, Metrics::new());
        let (source, cut) = (Arc::new(source), Arc::new(Mutex::new(false)));
        let spreading = feed.clone();
        let looking = (source.clone(), database.clone(), cut.clone());
        let tasks = [
            tokio::spawn(async move { spreading.waiting().spread().await }),
            tokio::spawn(async move {
                let (source, database, cut) = looking;
                loop {
                    source.nudged().await;
                    // On this clock nothing takes time; a look comes after what made it necessary.
                    sleep(Duration::from_millis(1)).await;
                    look(&source, &database, &cut);
                }
            }),
        ];
        Self { feed, source, shutdown: CancellationToken::new(), cut, tasks }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
        // What it still holds ends as in a process that ends: it is let go while it parts.
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// As the feeder does.
fn look(source: &Source, database: &Mutex<Database>, cut: &Mutex<bool>) {
    if *cut.lock().unwrap() {
        return;
    }
    let (database, current) = (database.lock().unwrap(), source.current());
    let held = current.version().revision;
    if held.0 as usize + 1 < database.at.len() {
        let log: Vec<_> =
            database.log.iter().filter(|(revision, _)| *revision > held).cloned().collect();
        let (next, touched) = if held < database.compacted {
            current.rebuilt(database.state())
        } else {
            let touched = Touched::by(&log);
            (current.after(log).unwrap(), touched)
        };
        source.publish(next, &touched);
    }
    source.looked(Instant::now());
}

/// What an agent enforces.
#[derive(Debug, Default)]
struct Enforced {
    version: Option<Version>,
    policies: BTreeSet<TaggedPolicy>,
    answers: usize,
}

/// What the agent shares with the test.
struct Cell {
    servers: Mutex<Vec<Server>>,
    at: Mutex<usize>,
    hang_up: Notify,
    enforced: Mutex<Enforced>,
    takes_deltas: bool,
    database: Arc<Mutex<Database>>,
    metrics: Metrics,
}

impl Cell {
    fn enforced(&self) -> MutexGuard<'_, Enforced> {
        self.enforced.lock().unwrap()
    }

    async fn run(self: Arc<Self>) {
        loop {
            let (feed, shutdown) = {
                let servers = self.servers.lock().unwrap();
                let Server { feed, shutdown, .. } = &servers[*self.at.lock().unwrap()];
                (feed.clone(), shutdown.clone())
            };
            let known = self.enforced().version.clone();
            let topic = Topic::Policies(Subject::Apps(asked()).into());
            let poll = Poll { topic, known, wait: Some(WAIT) };
            let asked = Instant::now();
            tokio::select! {
                outcome = hold(&poll, &feed, &self.metrics, &shutdown) => {
                    let waited = asked.elapsed();
                    assert!(waited <= 2 * WAIT, "held for {waited:?}");
                    self.hear(outcome);
                }
                () = self.hang_up.notified() => {}
            }
            yield_now().await;
        }
    }

    fn hear(&self, outcome: Outcome) {
        let mut enforced = self.enforced();
        enforced.answers += 1;
        match outcome {
            Outcome::Unchanged(snapshot, version) => {
                assert_eq!(enforced.version, Some(version.clone()), "its own version is echoed");
                assert!(
                    version.includes(snapshot.version())
                        || enforced.policies
                            == self.database.lock().unwrap().wanted(snapshot.version())
                );
            }
            Outcome::Fresh(snapshot, version) => {
                let delta = enforced.version.as_ref().filter(|_| self.takes_deltas);
                match delta.and_then(|known| snapshot.delta(&asked(), known, None)) {
                    Some(delta) => {
                        for entry in delta.removed {
                            assert!(enforced.policies.remove(&entry.tagged), "it was there");
                        }
                        for entry in delta.added {
                            assert!(enforced.policies.insert(entry.tagged.clone()), "it was not");
                        }
                        assert_eq!(enforced.policies.len(), delta.total);
                    }
                    None => {
                        let all = snapshot.policies_of(&Subject::Apps(asked()));
                        enforced.policies = all.iter().map(|entry| entry.tagged.clone()).collect();
                    }
                }
                let newer = enforced.version.as_ref().is_none_or(|known| version.includes(known));
                assert!(newer, "{version} after {:?}", enforced.version);
                enforced.version = Some(version);
            }
        }
        if let Some(version) = &enforced.version {
            let wanted = self.database.lock().unwrap().wanted(version);
            assert_eq!(enforced.policies, wanted, "at {version}");
        }
    }

    async fn take(&self, step: Step) {
        let at = |server: usize| {
            let servers = self.servers.lock().unwrap();
            (servers[server].source.clone(), servers[server].cut.clone())
        };
        match step {
            Step::Change { source, destination, port } => {
                self.database.lock().unwrap().change(source, destination, port, true);
            }
            Step::ChangeUnlogged { source, destination, port } => {
                self.database.lock().unwrap().change(source, destination, port, false);
            }
            Step::Look(server) => {
                let (source, cut) = at(server);
                look(&source, &self.database, &cut);
            }
            Step::Cut(server, cut) => *at(server).1.lock().unwrap() = cut,
            Step::Restart(server) => {
                let new = Server::start(&self.database);
                self.servers.lock().unwrap()[server] = new;
            }
            Step::Failover(server) => {
                *self.at.lock().unwrap() = server;
                self.hang_up.notify_one();
            }
            Step::HangUp => self.hang_up.notify_one(),
            Step::Pass(time) => sleep(time).await,
        }
        yield_now().await;
    }
}

async fn live_through(steps: Vec<Step>, takes_deltas: bool) {
    let database =
        Arc::new(Mutex::new(Database { at: vec![BTreeSet::new()], ..Database::default() }));
    let servers = Mutex::new(vec![Server::start(&database), Server::start(&database)]);
    let cell = Arc::new(Cell {
        servers,
        at: Mutex::default(),
        hang_up: Notify::new(),
        enforced: Mutex::default(),
        takes_deltas,
        database,
        metrics: Metrics::new(),
    });
    let agent = tokio::spawn(cell.clone().run());
    for step in steps {
        cell.take(step).await;
        assert!(!agent.is_finished(), "the agent has failed");
    }
    for server in [0, 1] {
        cell.take(Step::Cut(server, false)).await;
        cell.take(Step::Look(server)).await;
    }
    // A poll that came while the database was away ends with its time.
    sleep(3 * WAIT).await;
    assert!(!agent.is_finished(), "the agent has failed");
    let before = cell.enforced().answers;
    let now = version(cell.database.lock().unwrap().at.len() - 1);
    assert_eq!(cell.enforced().policies, cell.database.lock().unwrap().wanted(&now));
    sleep(2 * WAIT).await;
    let answers = cell.enforced().answers - before;
    assert!((1..=3).contains(&answers), "{answers} answers while nothing changes");
    agent.abort();
}

fn on_a_paused_clock(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap().block_on(test);
}

#[tokio::test(start_paused = true)]
async fn those_held_by_a_server_that_stops_part_one_after_the_other() {
    let mut database = Database { at: vec![BTreeSet::new()], ..Database::default() };
    database.change(0, 1, 1, true);
    let server = Server::start(&Arc::new(Mutex::new(database)));
    let began = Instant::now();
    let polls: Vec<_> = (0..2000)
        .map(|_| {
            let (feed, shutdown) = (server.feed.clone(), server.shutdown.clone());
            tokio::spawn(async move {
                let topic = Topic::Policies(Subject::Apps(asked()).into());
                let poll = Poll { topic, known: Some(version(1)), wait: Some(10 * WAIT) };
                let outcome = hold(&poll, &feed, &Metrics::new(), &shutdown).await;
                assert!(matches!(outcome, Outcome::Unchanged(_, known) if known == version(1)));
                began.elapsed()
            })
        })
        .collect();
    while server.feed.waiting().count() < polls.len() {
        yield_now().await;
    }
    server.shutdown.cancel();
    let mut ends = Vec::new();
    for poll in polls {
        ends.push(poll.await.unwrap());
    }
    ends.sort();
    assert!(ends.last().unwrap() <= &PARTING, "{ends:?}");
    let most = ends.windows(300).all(|some| some[299] - some[0] > Duration::from_millis(50));
    assert!(most, "many at once: {ends:?}");
}

/// What it passes over on the way wakes nobody: a policy is gone in what the cell has, and was there before
/// as it is after.
#[tokio::test(start_paused = true)]
async fn who_is_ahead_hears_when_its_server_catches_up_by_reading_everything() {
    let mut database = Database { at: vec![BTreeSet::new()], ..Database::default() };
    database.change(0, 1, 1, true);
    let database = Arc::new(Mutex::new(database));
    let server = Server::start(&database);
    *server.cut.lock().unwrap() = true;
    for _ in 0..2 {
        database.lock().unwrap().change(0, 1, 1, false);
    }
    let (feed, shutdown) = (server.feed.clone(), server.shutdown.clone());
    let poll = tokio::spawn(async move {
        let topic = Topic::Policies(Subject::Apps(asked()).into());
        let poll = Poll { topic, known: Some(version(2)), wait: Some(10 * WAIT) };
        match hold(&poll, &feed, &Metrics::new(), &shutdown).await {
            Outcome::Fresh(_, version) => version,
            Outcome::Unchanged(_, known) => panic!("{known} is not what there is"),
        }
    });
    while server.feed.waiting().count() == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(*server.feed.snapshot().version(), version(1), "it is behind");
    *server.cut.lock().unwrap() = false;
    let caught_up = Instant::now();
    look(&server.source, &database, &server.cut);
    assert_eq!(poll.await.unwrap(), version(3));
    assert!(caught_up.elapsed() < WAIT, "at the end of its time only");
}

/// Whoever comes while something is published, on another processor, hears of it before or after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_between_a_look_and_the_wait_is_heard_of() {
    let database = Database { at: vec![BTreeSet::new()], ..Database::default() };
    let database = Arc::new(Mutex::new(database));
    let server = Arc::new(Server::start(&database));
    for revision in 0..5000 {
        let together = Arc::new(Barrier::new(2));
        let (polls, there) = (together.clone(), server.clone());
        let poll = tokio::spawn(async move {
            let topic = Topic::Policies(Subject::Apps(asked()).into());
            let poll = Poll { topic, known: Some(version(revision)), wait: Some(10 * WAIT) };
            polls.wait();
            hold(&poll, &there.feed, &Metrics::new(), &there.shutdown).await
        });
        database.lock().unwrap().change(0, 1, 1, true);
        // On this thread, which runs no tasks.
        together.wait();
        look(&server.source, &database, &server.cut);
        let heard = tokio::time::timeout(WAIT, poll).await.expect("it is woken").unwrap();
        assert!(matches!(heard, Outcome::Fresh(_, told) if told == version(revision + 1)));
    }
}

proptest! {
    /// Whatever happens, the agent never has anything but what was true at the version it has, never
    /// goes back, is told nothing while nothing changes, and ends up with the truth.
    #[test]
    fn an_agent_hears_of_every_change_and_of_nothing_else(
        steps in prop::collection::vec(step(), 1..60),
        takes_deltas: bool,
    ) {
        on_a_paused_clock(live_through(steps, takes_deltas));
    }
}
