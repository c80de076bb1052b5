//! The wire itself: bytes nobody's HTTP client would send, and a network that stops working.

use reqwest::Url;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

use crate::program::DEADLINE;

/// The way to a database, as long as it works.
pub(crate) struct Relay {
    /// The object `database` of a configuration file, for who takes this way.
    pub config: Value,
    silent: watch::Sender<bool>,
}

impl Relay {
    /// A way to the database of `config`, which is such an object, too.
    pub(crate) async fn to(config: &Value) -> Self {
        let server = format!("{}:{}", config["host"].as_str().unwrap(), config["port"]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = config.clone();
        config["host"] = "127.0.0.1".into();
        config["port"] = listener.local_addr().unwrap().port().into();
        let (silent, heard) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass_on(client, server.clone(), heard.clone()));
            }
        });
        Self { config, silent }
    }

    /// Nothing arrives any more, in either direction, and the program is not told.
    pub(crate) fn drop_everything(&self) {
        self.silent.send_replace(true);
    }

    /// Whoever connects from now on gets through again. What was connected before is lost.
    pub(crate) fn work_again(&self) {
        self.silent.send_replace(false);
    }
}

async fn pass_on(mut client: TcpStream, server: String, mut silent: watch::Receiver<bool>) {
    let is_dead = *silent.borrow() || {
        let mut server = TcpStream::connect(server).await.unwrap();
        let dropped = async { silent.wait_for(|silent| *silent).await.is_ok() };
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => false,
            is_dead = dropped => is_dead,
        }
    };
    if is_dead {
        // The client's end stays open, and hears nothing more, until the test is over.
        std::future::pending::<()>().await;
    }
}

/// A connection to the host and port of `url`.
pub(crate) async fn connect(url: &str) -> TcpStream {
    let url: Url = url.parse().unwrap();
    TcpStream::connect((url.host_str().unwrap(), url.port().unwrap())).await.unwrap()
}

/// Everything that is answered until the other end closes the connection.
pub(crate) async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    answer
}

/// What is answered to a request without TLS, as the platform's health checks send one.
pub(crate) async fn plain_http(url: &str) -> String {
    let mut stream = connect(url).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").await.unwrap();
    rest(&mut stream).await
}
