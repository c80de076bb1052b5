use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use policy_store::{Options, StoreUrl};
use tokio::time::{advance, pause, resume};

use super::*;
use crate::asg::{DatabaseLead, list::tests::Script};

#[derive(Default)]
struct Counted {
    retrieved: AtomicUsize,
    synced: AtomicUsize,
}

impl SyncMetrics for Counted {
    fn retrieved(&self, _: Duration) {
        self.retrieved.fetch_add(1, Ordering::Relaxed);
    }

    fn synced(&self, _: Duration) {
        self.synced.fetch_add(1, Ordering::Relaxed);
    }
}

struct World {
    source: Arc<Script>,
    store: Arc<dyn PolicyStore>,
    metrics: Arc<Counted>,
    _dir: tempfile::TempDir,
}

const MINUTE: Duration = Duration::from_secs(60);

impl World {
    async fn new(source: Script) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = StoreUrl::Sqlite(dir.path().join("netman.db"));
        let store = policy_store::open(&url, &Options::default()).await.unwrap();
        Self { source: Arc::new(source), store, metrics: Arc::default(), _dir: dir }
    }

    fn syncer(&self, on_failure: OnFailure) -> Syncer {
        let settings = SyncerSettings { interval: MINUTE, unstable_for: 5 * MINUTE, on_failure };
        let (source, metrics) = (self.source.clone(), self.metrics.clone());
        Syncer::new(source, self.store.clone(), metrics, settings)
    }

    async fn stored(&self) -> Vec<(u64, String)> {
        let groups = self.store.security_groups().await.unwrap().unwrap_or_default();
        groups.into_iter().map(|row| (row.id, row.group.guid)).collect()
    }
}

fn numbered(groups: &[(u64, &str)]) -> Vec<(u64, String)> {
    groups.iter().map(|(id, guid)| (*id, (*guid).to_owned())).collect()
}

#[tokio::test]
async fn groups_come_go_and_keep_their_numbers() {
    let world = World::new(Script::new(&[Some(1)], &[&["a", "b"], &["c"]])).await;
    let mut syncer = world.syncer(OnFailure::End);
    syncer.sync().await.unwrap();
    assert_eq!(world.stored().await, numbered(&[(1, "a"), (2, "b"), (3, "c")]));
    let version = world.store.version().await.unwrap();

    syncer.sync().await.unwrap();
    assert_eq!(world.metrics.synced.load(Ordering::Relaxed), 1, "nothing changed, nothing read");
    world.source.play(&[Some(2)], &[&["c", "b", "a"]]);
    syncer.sync().await.unwrap();
    assert_eq!(world.store.version().await.unwrap(), version, "read, and found to be the same");

    world.source.play(&[Some(3)], &[&["d", "c"]]);
    syncer.sync().await.unwrap();
    assert_eq!(world.stored().await, numbered(&[(3, "c"), (4, "d")]));
    let counted = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    assert_eq!((counted(&world.metrics.retrieved), counted(&world.metrics.synced)), (3, 3));
}

#[tokio::test]
async fn a_database_made_anew_is_told_what_has_not_changed_since() {
    let [world, anew] = [
        World::new(Script::new(&[Some(1)], &[&["a"]])).await,
        World::new(Script::new(&[Some(1)], &[&["a"]])).await,
    ];
    let mut syncer = world.syncer(OnFailure::End);
    syncer.sync().await.unwrap();
    syncer.store = anew.store.clone();
    syncer.sync().await.unwrap();
    assert_eq!(anew.stored().await, numbered(&[(1, "a")]));
}

#[tokio::test]
async fn a_restless_list_is_tolerated_until_the_deadline() {
    let world = World::new(Script::new(&[Some(1)], &[&["a"]])).await;
    let mut syncer = world.syncer(OnFailure::End);
    syncer.sync().await.unwrap();
    let restless: Vec<_> = (2..40).map(Some).collect();
    world.source.play(&restless, &[&["b"]]);
    // Not before: while the clock stands, waiting for the database would let it jump.
    pause();
    advance(4 * MINUTE).await;
    syncer.sync().await.unwrap();
    advance(MINUTE).await;
    let error = syncer.sync().await.unwrap_err();
    assert!(
        matches!(error, SyncerError::Unstable(unread) if unread.as_secs() == 5 * 60),
        "{error:?}"
    );
    resume();
    assert_eq!(world.stored().await, numbered(&[(1, "a")]), "the last good list stays");
}

#[tokio::test]
async fn a_failed_look_changes_nothing() {
    let world = World::new(Script::new(&[Some(1)], &[&["a"]])).await;
    let mut syncer = world.syncer(OnFailure::End);
    syncer.sync().await.unwrap();
    *world.source.fails.lock().unwrap() = true;
    assert!(matches!(syncer.sync().await.unwrap_err(), SyncerError::Source(_)));
    assert_eq!(world.stored().await, numbered(&[(1, "a")]));
}

/// A lead that answers as it is told.
struct Told {
    answers: Mutex<Box<dyn FnMut() -> Result<bool, LeadError> + Send>>,
    released: AtomicUsize,
}

impl Told {
    fn new(answers: impl FnMut() -> Result<bool, LeadError> + Send + 'static) -> Self {
        Self { answers: Mutex::new(Box::new(answers)), released: AtomicUsize::new(0) }
    }
}

#[async_trait]
impl Leadership for Told {
    async fn hold(&self) -> Result<bool, LeadError> {
        self.answers.lock().unwrap()()
    }

    async fn release(&self) -> Result<(), LeadError> {
        self.released.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn lifetime(&self) -> Duration {
        Duration::from_secs(15)
    }
}

fn away() -> LeadError {
    LeadError::Locket(tonic::Status::unavailable("away"))
}

#[tokio::test]
async fn the_first_look_comes_after_one_interval_and_a_failure_ends_the_syncer() {
    let world = World::new(Script::new(&[Some(1)], &[&["a"]])).await;
    *world.source.fails.lock().unwrap() = true;
    pause();
    let lead = Told::new(|| Ok(true));
    let started = Instant::now();
    let ended = run(world.syncer(OnFailure::End), &lead, CancellationToken::new()).await;
    assert!(matches!(ended, Err(SyncerError::Source(_))), "{ended:?}");
    assert_eq!(started.elapsed().as_secs(), MINUTE.as_secs());
    assert_eq!(lead.released.load(Ordering::Relaxed), 1, "another may lead at once");
}

#[tokio::test]
async fn without_the_lead_nothing_is_done() {
    let world = World::new(Script::new(&[Some(1)], &[&["a"]])).await;
    pause();
    let shutdown = CancellationToken::new();
    let lead = Told::new(|| Ok(false));
    let stop = async {
        sleep(10 * MINUTE).await;
        shutdown.cancel();
    };
    let (ended, ()) =
        tokio::join!(run(world.syncer(OnFailure::GoOn), &lead, shutdown.clone()), stop);
    ended.unwrap();
    assert_eq!(world.source.asked.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_lost_lead_ends_the_syncer_at_once_and_an_unsure_one_when_it_lapses() {
    let world = World::new(Script::new(&[Some(1)], &[&["a"]])).await;
    pause();
    let ended_after = async |answers: Vec<Result<bool, LeadError>>| {
        let mut answers = answers.into_iter();
        let lead = Told::new(move || answers.next().unwrap_or_else(|| Err(away())));
        let started = Instant::now();
        let ended = run(world.syncer(OnFailure::GoOn), &lead, CancellationToken::new()).await;
        (ended.unwrap_err(), started.elapsed().as_secs())
    };
    let (error, after) = ended_after(vec![Ok(true), Ok(true), Ok(false)]).await;
    assert!(matches!(error, SyncerError::LeadLost), "{error:?}");
    assert_eq!(after, 10);
    let (error, after) =
        ended_after(vec![Err(away()), Ok(false), Ok(true), Err(away()), Ok(true)]).await;
    assert!(matches!(error, SyncerError::LeadLapsed(_)), "{error:?}");
    assert_eq!(after, 10 + 10 + 15, "two failures to begin with, then 15 s after the last renewal");
}

/// Two syncers on one database: the second takes over when the first is told to stop, and when it dies.
#[tokio::test]
async fn another_syncer_takes_over() {
    let world = World::new(Script::new(&[Some(1)], &[&["a"]])).await;
    let lead = |owner: &str| {
        let lifetime = Duration::from_millis(600);
        DatabaseLead::new(world.store.clone(), owner.to_owned(), lifetime)
    };
    let (one, two) = (lead("one"), lead("two"));
    assert!(one.hold().await.unwrap() && one.hold().await.unwrap());
    assert!(!two.hold().await.unwrap());
    one.release().await.unwrap();
    assert!(two.hold().await.unwrap() && !one.hold().await.unwrap());
    // The second dies; its lead lapses by the database's clock.
    let deadline = Instant::now() + Duration::from_secs(20);
    while !one.hold().await.unwrap() {
        assert!(Instant::now() < deadline, "the lead of the dead never lapsed");
        sleep(Duration::from_millis(10)).await;
    }
}
