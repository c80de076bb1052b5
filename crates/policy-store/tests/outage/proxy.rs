//! A network between the store and its database, which can be told to drop everything.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
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
    /// How many connections listened for notifications, and were cut for that.
    pub cut: Arc<AtomicUsize>,
}

impl Proxy {
    /// A way to the server of a URL `scheme://user@host:port/database`.
    pub(crate) async fn to(url: &str) -> Self {
        Self::through(url, false).await
    }

    /// One that cuts whoever listens for notifications, as they are not for everybody it serves.
    pub(crate) async fn that_cannot_listen(url: &str) -> Self {
        Self::through(url, true).await
    }

    async fn through(url: &str, cuts: bool) -> Self {
        let (head, rest) = url.split_once('@').unwrap();
        let (address, database) = rest.split_once('/').unwrap();
        let server: SocketAddr = address.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{head}@{}/{database}", listener.local_addr().unwrap());
        let (silent, heard) = watch::channel(false);
        let cut = Arc::new(AtomicUsize::new(0));
        let counted = cut.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (heard, counted) = (heard.clone(), counted.clone());
                tokio::spawn(async move {
                    if cuts {
                        connect_listening_apart(client, server, &counted).await;
                    } else {
                        connect(client, server, heard).await;
                    }
                });
            }
        });
        Self { url, silent, cut }
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

/// Forwards until the client says `LISTEN`.
async fn connect_listening_apart(client: TcpStream, server: SocketAddr, cut: &AtomicUsize) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asking = async {
        let mut heard = [0; 16384];
        loop {
            let length = from_client.read(&mut heard).await.unwrap_or(0);
            let heard = &heard[..length];
            if heard.is_empty() {
                break;
            }
            if heard.windows(6).any(|word| word == b"LISTEN") {
                cut.fetch_add(1, Ordering::Relaxed);
                break;
            }
            if to_server.write_all(heard).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = asking => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
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
