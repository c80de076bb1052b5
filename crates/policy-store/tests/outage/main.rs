//! A database that dies under load and comes back. Each test has a server of its own to kill.

#![expect(clippy::unwrap_used, reason = "a test may end at the first surprise")]

mod hints;
mod mariadb;
mod postgres;
mod proxy;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use policy::{Policy, Protocol};
use policy_store::{Actor, CellsReport, Filter, Options, PolicyStore, StoreUrl, StoredReceipt};
use proxy::Proxy;
use tokio::time::{sleep, timeout};

/// What a test waits for must come true within this.
const DEADLINE: Duration = Duration::from_secs(60);

fn policy(source: &str, port: u16) -> Policy {
    Policy {
        source: source.parse().unwrap(),
        destination: "db".parse().unwrap(),
        protocol: Protocol::Tcp,
        ports: port.to_string().parse().unwrap(),
    }
}

fn word(cell: &str) -> StoredReceipt {
    StoredReceipt {
        cell: cell.to_owned(),
        enforced: None,
        apps: None,
        backend: None,
        error: None,
        agent: None,
        age: Duration::ZERO,
    }
}

/// A database server of a test's own; gone when dropped.
trait Server {
    fn start() -> Self;

    fn url(&self) -> String;

    /// Starts it, and waits until it lets somebody in.
    fn restart(&mut self);

    /// Ends it at once, in the middle of whatever it does.
    fn kill(&mut self);

    /// Stops it where it is.
    fn freeze(&self);

    /// Lets it go on.
    fn thaw(&self);
}

/// Makes a test of a story for each kind of server.
macro_rules! stories {
    ($($story:ident),* $(,)?) => {
        mod on_postgres {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $story() {
                    super::$story(<crate::postgres::Postgres as crate::Server>::start()).await;
                }
            )*
        }
        mod on_mariadb {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $story() {
                    super::$story(<crate::mariadb::MariaDb as crate::Server>::start()).await;
                }
            )*
        }
    };
}

stories! {
    every_acknowledged_write_outlives_the_database,
    a_database_that_hangs_is_given_up_and_found_again,
    a_network_that_drops_everything_is_given_up_and_found_again,
}

async fn open(server: &impl Server) -> Arc<dyn PolicyStore> {
    let url: StoreUrl = server.url().parse().unwrap();
    let options = Options { patience: Duration::from_secs(5), ..Options::default() };
    policy_store::open(&url, &options).await.unwrap()
}

/// Waits until `seen` holds, letting others work meanwhile.
async fn until(what: &str, seen: impl Fn() -> bool) {
    let started = Instant::now();
    while !seen() {
        assert!(started.elapsed() < DEADLINE, "gave up waiting until {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn every_acknowledged_write_outlives_the_database(mut server: impl Server) {
    let store = open(&server).await;
    let (stop, written, failed) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (store, stop) = (store.clone(), stop.clone());
            let (written, failed) = (written.clone(), failed.clone());
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for port in 1.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let policy = policy(&format!("writer-{writer}"), port);
                    match store.create(std::slice::from_ref(&policy), &Actor::system("test")).await
                    {
                        Ok(version) => {
                            acknowledged.push((policy, version.revision));
                            written.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(_) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            // As a caller would; the database needs the processor to come back.
                            sleep(Duration::from_millis(20)).await;
                        }
                    }
                }
                acknowledged
            })
        })
        .collect();

    for round in 0..3 {
        let before = written.load(Ordering::Relaxed);
        until("writes succeed", || written.load(Ordering::Relaxed) > before + 50).await;
        let failures = failed.load(Ordering::Relaxed);
        server.kill();
        until("callers are told", || failed.load(Ordering::Relaxed) > failures).await;
        assert!(store.ping().await.is_err(), "round {round}: a dead database answered");
        assert!(store.version().await.is_err());
        server.restart();
    }
    let before = written.load(Ordering::Relaxed);
    until("writes succeed again", || written.load(Ordering::Relaxed) > before + 50).await;
    stop.store(true, Ordering::Relaxed);

    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    let there: BTreeSet<_> = store
        .policies(&Filter::All)
        .await
        .unwrap()
        .into_iter()
        .map(|tagged| tagged.policy)
        .collect();
    let lost: Vec<_> = acknowledged.iter().filter(|(policy, _)| !there.contains(policy)).collect();
    assert!(
        lost.is_empty(),
        "{} of {} acknowledged writes are lost",
        lost.len(),
        acknowledged.len()
    );
    let revisions: BTreeSet<_> = acknowledged.iter().map(|(_, revision)| revision).collect();
    assert_eq!(revisions.len(), acknowledged.len(), "a revision was given twice");
}

/// Nothing is refused and nothing comes back: what a dropped packet looks like from here.
async fn a_database_that_hangs_is_given_up_and_found_again(server: impl Server) {
    let store = open(&server).await;
    store.create(&[policy("web", 1)], &Actor::system("test")).await.unwrap();
    server.freeze();
    let actor = Actor::system("test");
    let waited = Instant::now();
    let web = [policy("web", 2)];
    let (created, listed, ping) =
        tokio::join!(store.create(&web, &actor), store.version(), store.ping());
    assert!(created.is_err() && listed.is_err() && ping.is_err());
    assert!(waited.elapsed() < DEADLINE, "it waited for ever");
    server.thaw();
    let deadline = Instant::now() + DEADLINE;
    while store.create(&[policy("web", 3)], &actor).await.is_err() {
        assert!(Instant::now() < deadline, "it never recovered");
    }
    assert!(store.policies(&Filter::All).await.unwrap().len() >= 2);
}

/// Packets vanish under load, in the middle of transactions, and those connections never come back to
/// life: the database still holds for us what we had locked.
async fn a_network_that_drops_everything_is_given_up_and_found_again(server: impl Server) {
    const SECOND: Duration = Duration::from_secs(1);
    let proxy = Proxy::to(&server.url()).await;
    let url = proxy.url.parse::<StoreUrl>().unwrap();
    let options = Options { patience: SECOND, ..Options::default() };
    let store = policy_store::open(&url, &options).await.unwrap();
    let actor = Actor::system("test");
    store.create(&[policy("web", 1)], &actor).await.unwrap();

    let writing = Arc::new(AtomicBool::new(true));
    let load: Vec<_> = (0..8u16)
        .map(|writer| {
            let (store, writing) = (store.clone(), writing.clone());
            tokio::spawn(async move {
                let actor = Actor::system("test");
                let mine = [policy(&format!("writer-{writer}"), 1)];
                while writing.load(Ordering::Relaxed) {
                    let _ = store.create(&mine, &actor).await;
                    let _ = store.delete(&mine, &actor).await;
                    let _ = store.version().await;
                }
            })
        })
        .collect();
    let seen = store.version().await.unwrap();
    let begun = seen.revision;
    let started = Instant::now();
    while store.version().await.unwrap().revision.0 < begun.0 + 20 {
        assert!(started.elapsed() < DEADLINE, "nothing was written");
    }
    proxy.drop_everything();

    // Whatever a caller can ask for has failed when it is told so, and it is told (§9.4).
    let group = policy_store::LeadershipStore::lead(&*store, "sync", "me", SECOND);
    let web = [policy("web", 2)];
    let asked = async {
        tokio::join!(
            store.create(&web, &actor),
            store.delete(&web, &actor),
            store.policies(&Filter::All),
            store.tags(),
            store.tag_for("INGRESS", "router"),
            store.last_updated(),
            store.version(),
            store.state(),
            store.security_groups(),
            store.leases(),
            store.ping(),
            group,
        )
    };
    let said = [word("cell-1")];
    let noted = async {
        tokio::join!(
            store.changes_since(&seen),
            store.begin_another_life(None),
            store.report_cells("server", CellsReport::Silent),
            store.write_receipts("server", &said),
            store.receipts(),
            store.forget_receipts(DEADLINE),
        )
    };
    let asked = async { tokio::join!(asked, noted) };
    let (told, noted) =
        timeout(5 * SECOND, asked).await.expect("every caller is told within five seconds");
    assert!(told.0.is_err() && told.1.is_err() && told.2.is_err() && told.3.is_err());
    assert!(told.4.is_err() && told.5.is_err() && told.6.is_err() && told.7.is_err());
    assert!(noted.0.is_err() && noted.1.is_err() && noted.2.is_err());
    assert!(noted.3.is_err() && noted.4.is_err() && noted.5.is_err());
    assert!(told.8.is_err() && told.9.is_err() && told.10.is_err() && told.11.is_err());
    writing.store(false, Ordering::Relaxed);
    for writer in load {
        writer.await.unwrap();
    }

    proxy.forward_again();
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = store.create(&[policy("web", 3)], &actor).await {
        assert!(Instant::now() < deadline, "it never recovered: {error:?}");
        sleep(Duration::from_millis(50)).await;
    }
    store.ping().await.unwrap();
    while store.write_receipts("server", &said).await.is_err() {
        assert!(Instant::now() < deadline, "receipts are never written again");
    }
    assert_eq!(store.receipts().await.unwrap().len(), 1);
    assert!(store.policies(&Filter::All).await.unwrap().len() >= 2);
}
