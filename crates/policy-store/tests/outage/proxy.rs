//! A network between the store and its database, which can be told to drop everything.

use std::net::SocketAddr;

use tokio::{
    io::AsyncWriteExt,
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

pub(crate) struct Proxy {
    /// The database's URL, by this way.
    pub url: String,
    silent: watch::Sender<bool>,
}

impl Proxy {
    /// A way to the server of a URL `scheme://user@host:port/database`.
    pub(crate) async fn to(url: &str) -> Self {
        let (head, rest) = url.split_once('@').unwrap();
        let (address, database) = rest.split_once('/').unwrap();
        let server: SocketAddr = address.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{head}@{}/{database}", listener.local_addr().unwrap());
        let (silent, heard) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, server, heard.clone()));
            }
        });
        Self { url, silent }
    }

    /// Nothing arrives any more, in either direction, and nobody is told.
    pub(crate) fn drop_everything(&self) {
        self.silent.send_replace(true);
    }

    /// New connections work again. Those that lost something never do.
    pub(crate) fn forward_again(&self) {
        self.silent.send_replace(false);
    }
}

async fn connect(client: TcpStream, server: SocketAddr, silent: watch::Receiver<bool>) {
    if *silent.borrow() {
        // Not even its greeting arrives.
        std::future::pending::<()>().await;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(
        forward(from_client, to_server, silent.clone()),
        forward(from_server, to_client, silent),
    );
}

/// Forwards until something is to be dropped. Then both ends stay open, and hear nothing more.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut silent: watch::Receiver<bool>,
) {
    let silenced = async { silent.wait_for(|silent| *silent).await.is_ok() };
    let copied = async {
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
        false
    };
    let dead = tokio::select! {
        biased;
        dead = silenced => dead,
        dead = copied => dead,
    };
    if dead {
        std::future::pending::<()>().await;
    }
}
