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
#[error("listening on {address} for the {api} API")]
pub struct ListenError {
    api: &'static str,
    address: SocketAddr,
    #[source]
    source: io::Error,
}

impl Listeners {
    /// Opens both; port 0 takes a free one.
    pub async fn bind(external: SocketAddr, internal: SocketAddr) -> Result<Self, ListenError> {
        Ok(Self {
            external: listen("external", external).await?,
            internal: listen("internal", internal).await?,
        })
    }
}

async fn listen(api: &'static str, address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError { api, address, source })
}
