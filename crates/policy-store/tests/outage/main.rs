//! A database that dies under load and comes back. Each test has a PostgreSQL of its own to kill.

#![expect(clippy::unwrap_used, reason = "a test may end at the first surprise")]

mod server;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use policy::{Policy, Protocol};
use policy_store::{Actor, Filter, Options, PolicyStore, StoreUrl};
use server::Server;
use tokio::time::sleep;

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

async fn open(server: &Server) -> Arc<dyn PolicyStore> {
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

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_write_outlives_the_database() {
    let mut server = Server::start();
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
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_is_given_up_and_found_again() {
    let server = Server::start();
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
