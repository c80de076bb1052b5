//! What becomes of hints when the connection that hears them is lost.

use policy_store::{Changes, Options, StoreUrl};
use sqlx::{Connection, PgConnection};

use super::*;

/// Whoever listens: it is all that the connection ever says.
const LISTENERS: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN %'";

/// Waits for a hint, while changes are made by `writer`.
async fn hinted(store: &dyn PolicyStore, writer: &dyn PolicyStore) {
    let mut port = 1;
    let writing = async {
        loop {
            // It may not be back yet.
            let _ = writer.create(&[policy("web", port)], &Actor::system("test")).await;
            port += 1;
            sleep(Duration::from_millis(50)).await;
        }
    };
    let hinted = async {
        tokio::select! {
            () = store.hint() => {}
            () = writing => {}
        }
    };
    timeout(DEADLINE, hinted).await.expect("no hint came");
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_come_again_after_whoever_listens_was_cut_off() {
    let mut server = postgres::Postgres::start();
    let (store, writer) = (open(&server).await, open(&server).await);
    timeout(DEADLINE, store.hint()).await.expect("it begins with one");
    for round in 0..2 {
        let mut administrator = PgConnection::connect(&server.url()).await.unwrap();
        let cut = sqlx::query(LISTENERS).execute(&mut administrator).await.unwrap();
        assert_eq!(cut.rows_affected(), 1, "one listens, whoever writes does not");
        store.version().await.expect("nothing else is lost");
        timeout(DEADLINE, store.hint()).await.expect("what happened meanwhile is to be looked for");
        hinted(&*store, &*writer).await;
        if round == 0 {
            server.kill();
            server.restart();
            timeout(DEADLINE, store.hint()).await.expect("it listens again");
        }
    }
}

/// Nothing tells that the connection is dead. It is noticed all the same.
#[tokio::test(flavor = "multi_thread")]
async fn hints_come_again_after_the_network_dropped_everything() {
    let server = postgres::Postgres::start();
    let proxy = Proxy::to(&server.url()).await;
    let url: StoreUrl = proxy.url.parse().unwrap();
    let store = policy_store::open(&url, &Options::default()).await.unwrap();
    let writer = open(&server).await;
    timeout(DEADLINE, store.hint()).await.expect("it begins with one");
    proxy.drop_everything();
    writer.create(&[policy("lost", 1)], &Actor::system("test")).await.unwrap();
    proxy.forward_again();
    timeout(2 * DEADLINE, store.hint()).await.expect("it listens again");
    hinted(&*store, &*writer).await;
}

/// As behind a pooler. Only looking finds what changed, and it does.
#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_can_listen_everything_else_goes_on() {
    let server = postgres::Postgres::start();
    let proxy = Proxy::that_cannot_listen(&server.url()).await;
    let url: StoreUrl = proxy.url.parse().unwrap();
    let store = policy_store::open(&url, &Options::default()).await.unwrap();
    let start = store.version().await.unwrap();
    let listening = {
        let store = store.clone();
        tokio::spawn(async move { store.hint().await })
    };
    until("it was tried twice", || proxy.cut.load(Ordering::Relaxed) >= 2).await;
    for port in 1..=20 {
        store.create(&[policy("web", port)], &Actor::system("test")).await.unwrap();
    }
    let Changes::Log(log) = store.changes_since(&start).await.unwrap() else { panic!("forgotten") };
    assert_eq!(log.len(), 20);
    assert!(!listening.is_finished(), "there was nothing to hear");
    assert!(proxy.cut.load(Ordering::Relaxed) < 10, "it is tried less and less often");
    store.close().await;
    listening.abort();
}
