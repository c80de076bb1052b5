//! A follower behind proxies that mean well. They see ciphertext only, so they can delay, cut and drop,
//! but not change.

use std::{net::SocketAddr, sync::Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::{sleep, timeout},
};

use super::*;
use crate::internal::follow;

const DEADLINE: Duration = Duration::from_secs(20);

/// What a proxy does to the connections made from now on.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// Nothing.
    Pass,
    /// Ends each after this.
    Cut(Duration),
    /// Ends each after this many bytes of answers.
    CutAfter(usize),
    /// Lets answers through only after this long.
    Buffer(Duration),
    /// Lets so many bytes of answers through, and none after, for ever.
    Swallow(usize),
}

struct Proxy {
    url: String,
    manner: Arc<Mutex<Manner>>,
}

impl Proxy {
    async fn before(server: &Server, manner: Manner) -> Self {
        let behind: SocketAddr = server.url.trim_start_matches("https://").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let manner = Arc::new(Mutex::new(manner));
        let now = manner.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let manner = *now.lock().unwrap();
                tokio::spawn(carry(client, behind, manner));
            }
        });
        Self { url, manner }
    }

    /// Of connections made from now on.
    fn becomes(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    fn follower(&self, server: &Server, change: impl FnOnce(&mut Settings)) -> Follower {
        let mut settings = Settings { urls: vec![self.url.clone()], ..server.settings() };
        change(&mut settings);
        let hold = if settings.timeout < Duration::from_secs(1) { 1 } else { 55 };
        let how = follow::Settings {
            cell: "cell-1".into(),
            hold: Duration::from_secs(hold),
            poll_interval: Duration::from_millis(100),
        };
        Follower::new(Client::each(&settings).unwrap(), how)
    }
}

async fn carry(client: TcpStream, behind: SocketAddr, manner: Manner) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = TcpStream::connect(behind).await.unwrap().into_split();
    let there = pour(from_client, to_server, Manner::Pass);
    let back = pour(from_server, to_client, manner);
    // Whoever is done first ends it for both.
    let either = async {
        tokio::select! { () = there => {}, () = back => {} }
    };
    match manner {
        Manner::Cut(after) => drop(timeout(after, either).await),
        _ => either.await,
    }
}

async fn pour(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, manner: Manner) {
    let mut left = match manner {
        Manner::CutAfter(bytes) | Manner::Swallow(bytes) => bytes,
        _ => usize::MAX,
    };
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        if let Manner::Buffer(pause) = manner {
            sleep(pause).await;
        }
        let passed = read.min(left);
        left -= passed;
        if to.write_all(&bytes[..passed]).await.is_err() {
            return;
        }
        if left == 0 && matches!(manner, Manner::CutAfter(_)) {
            return;
        }
    }
}

async fn ask(follower: &mut Follower, known: Option<&str>) -> News {
    let (apps, known) = (apps(&["a"]), known.map(version));
    let words = ReceiptWords::default();
    let asked = timeout(DEADLINE, follower.ask(&apps, known.as_ref(), &words)).await;
    asked.expect("an answer or a failure in time")
}

/// An answer far larger than a handshake.
fn many() -> Vec<TaggedPolicy> {
    (0..2000).map(|n| tagged("a", &format!("app-{n}"))).collect()
}

fn waits(server: &Server) -> Vec<String> {
    let all = (0..server.unseen()).map(|_| server.asked());
    all.filter_map(|asked| asked.header("prefer").map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_proxy_that_cuts_costs_no_change_and_is_asked_for_less() {
    let server = Server::start().await;
    let proxy = Proxy::before(&server, Manner::Cut(Duration::from_millis(1200))).await;
    let mut follower = proxy.follower(&server, |_| ());
    // On a busy machine the proxy may cut a handshake, which teaches nothing.
    while follower.counts().cuts < 2 {
        assert!(matches!(ask(&mut follower, Some("life.5")).await, News::Failed { .. }));
    }
    proxy.becomes(Manner::Pass);
    server.will(Reply::ok(&listed(&[tagged("a", "b")])).etag("\"life.7\""));
    let News::Policies { all, .. } = ask(&mut follower, Some("life.5")).await else {
        panic!("the change that came between two holds is told");
    };
    assert_eq!(all.len(), 1);
    assert_eq!(waits(&server), ["wait=55", "wait=55", "wait=27"]);
}

#[tokio::test]
async fn half_an_answer_is_none() {
    let server = Server::start().await;
    let proxy = Proxy::before(&server, Manner::CutAfter(20_000)).await;
    let mut follower = proxy.follower(&server, |_| ());
    for _ in 0..2 {
        server.will(Reply::ok(&listed(&many())).etag("\"life.7\""));
    }
    let news = ask(&mut follower, None).await;
    assert!(matches!(news, News::Failed { .. }), "{news:?}");
    proxy.becomes(Manner::Pass);
    let News::Policies { all, .. } = ask(&mut follower, None).await else {
        panic!("the whole comes when it can");
    };
    assert_eq!(all.len(), 2000);
}

#[tokio::test]
async fn a_proxy_that_buffers_delays_and_changes_nothing() {
    let server = Server::start().await;
    let proxy = Proxy::before(&server, Manner::Buffer(Duration::from_millis(30))).await;
    let mut follower = proxy.follower(&server, |_| ());
    server.will(Reply::ok(&listed(&[tagged("a", "b")])).etag("\"life.7\""));
    assert!(matches!(ask(&mut follower, None).await, News::Policies { .. }));
    let body = policy::wire::delta::write(1, [], []);
    let reply = Reply::status(226).header("IM", "netman-changes").etag("\"life.8\"").body(&body);
    server.will(reply.header("Delta-Base", "\"life.7\""));
    let news = ask(&mut follower, Some("life.7")).await;
    assert!(matches!(news, News::Policies { version: Some(at), .. } if at == version("life.8")));
    assert_eq!(follower.counts().failures, 0);
}

#[tokio::test]
async fn a_proxy_that_swallows_everything_is_given_up_in_time_for_another_address() {
    let (server, silent) = (Server::start().await, Server::start().await);
    let proxy = Proxy::before(&silent, Manner::Swallow(0)).await;
    let mut follower = proxy.follower(&server, |settings| {
        settings.urls.push(server.url.clone());
        settings.timeout = Duration::from_millis(500);
    });
    server.will(Reply::ok(&listed(&[])).etag("\"life.7\""));
    let answered =
        async { while !matches!(ask(&mut follower, None).await, News::Policies { .. }) {} };
    timeout(DEADLINE, answered).await.expect("the other address answers in time");
}

#[tokio::test]
async fn a_held_question_whose_answer_is_swallowed_is_asked_again() {
    let server = Server::start().await;
    // Enough for a handshake, not for what follows it.
    let proxy = Proxy::before(&server, Manner::Swallow(6_000)).await;
    let mut follower = proxy.follower(&server, |settings| {
        settings.timeout = Duration::from_millis(500);
    });
    server.will(Reply::ok(&listed(&many())).etag("\"life.7\""));
    let news = ask(&mut follower, Some("life.5")).await;
    assert!(matches!(news, News::Failed { .. }), "{news:?}");
    proxy.becomes(Manner::Pass);
    // The dead connection is used until nobody answers its pings; then there is a new one.
    for _ in 0..50 {
        server.will(Reply::ok(&listed(&[])).etag("\"life.7\""));
    }
    let answered = async {
        while !matches!(ask(&mut follower, Some("life.5")).await, News::Policies { .. }) {}
    };
    timeout(DEADLINE, answered).await.expect("a new connection in time");
}
