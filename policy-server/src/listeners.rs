use std::{io, net::SocketAddr};

use thiserror::Error;
use tokio::net::TcpListener;

/// The sockets of both APIs, open. Callers who come before [`run`](crate::run) wait in line.
#[derive(Debug)]
pub struct Listeners {
    pub(crate) external: TcpListener,
    pub(crate) internal: TcpListener,
}

/// An address that cannot be listened on.
#[derive(Debug, Error)]
#[error("listening on {host}:{port} for the {what}")]
pub struct ListenError {
    what: &'static str,
    host: String,
    port: u16,
    #[source]
    source: io::Error,
}

impl Listeners {
    /// Opens both; port 0 takes a free one.
    pub async fn bind(external: SocketAddr, internal: SocketAddr) -> Result<Self, ListenError> {
        let listen = async |what, address: SocketAddr| {
            listen(what, (&address.ip().to_string(), address.port())).await
        };
        Ok(Self {
            external: listen("external API", external).await?,
            internal: listen("internal API", internal).await?,
        })
    }
}

/// Opens a socket for `what` on a port of `host`, a name or an address.
pub(crate) async fn listen(
    what: &'static str,
    (host, port): (&str, u16),
) -> Result<TcpListener, ListenError> {
    let failed = |source| ListenError { what, host: host.to_owned(), port, source };
    TcpListener::bind((host, port)).await.map_err(failed)
}
