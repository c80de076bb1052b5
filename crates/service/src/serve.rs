//! Listeners. Each serves until its token is cancelled, then closes, lets the requests in flight end
//! for at most [`DRAIN`], and returns. They speak HTTP/1.1, and HTTP/2 to those who ask for it in the
//! TLS handshake: nobody's first bytes need be waited for to learn which it is.
//!
//! A TLS listener hands the caller's certificates to handlers as a [`Peer`] extension, and answers
//! plain HTTP with a 400, since health checks of the platform rely on that
//! (spec/policy-server.md §12.3).
//!
//! Callers cannot hurt each other much: handshakes take turns, and who does not read what was asked for
//! is let go.

mod flight;
mod turns;

use std::{convert::Infallible, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{error::Elapsed, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::tls::{self, Live};
use flight::{Flight, Reader};
use turns::Turns;

/// How long requests in flight may take to end after the signal.
pub const DRAIN: Duration = Duration::from_secs(60);

/// How long a caller may take to shake hands.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may still take once the process is to end.
const PATIENCE_AT_THE_END: Duration = Duration::from_secs(5);

/// How long a connection may stay open between requests, or in the middle of a request's headers.
const IDLE: Duration = Duration::from_secs(90);

/// The first byte of every TLS connection: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

const PLAIN_HTTP_ON_TLS: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// Who is calling, as an extension of each request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The caller's address.
    pub address: SocketAddr,
    /// The caller's verified certificate chain, leaf first; empty on a listener without TLS.
    pub certificates: Arc<[CertificateDer<'static>]>,
}

/// What is spoken on a connection, known before its first byte.
#[derive(Debug, Clone, Copy)]
enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    /// What was agreed on in the handshake; who agrees on nothing speaks HTTP/1.1.
    fn of_alpn(agreed: Option<&[u8]>) -> Self {
        if agreed == Some(tls::HTTP2) { Self::Http2 } else { Self::Http1 }
    }
}

/// Serves `routes` without TLS.
pub async fn http(listener: TcpListener, routes: Router, shutdown: CancellationToken) {
    let flight = Flight::new();
    accept(listener, shutdown, move |stream, address, watcher| {
        let peer = Peer { address, certificates: Arc::new([]) };
        connection(stream, Protocol::Http1, peer, routes.clone(), flight.clone(), watcher)
    })
    .await;
}

/// Serves `routes` over TLS, each connection with the settings of its moment.
pub async fn https(
    listener: TcpListener,
    tls: impl Into<Live>,
    routes: Router,
    shutdown: CancellationToken,
) {
    let tls = tls.into();
    let (flight, turns, stopping) = (Flight::new(), Turns::of_this_machine(), shutdown.clone());
    accept(listener, shutdown, move |stream, address, watcher| {
        let (routes, flight) = (routes.clone(), flight.clone());
        let (turns, stopping) = (turns.clone(), stopping.clone());
        let acceptor = TlsAcceptor::from(tls.current());
        // The handshake has a box of its own, of which nothing is left while the connection lives.
        let greeting = Box::pin(async move {
            let shaken = tokio::select! {
                shaken = timeout(PATIENCE, handshake(&acceptor, &turns, stream)) => shaken,
                () = out_of_patience(stopping) => return None,
            };
            let stream = shaken_hands(shaken, address)?;
            let session = stream.get_ref().1;
            let protocol = Protocol::of_alpn(session.alpn_protocol());
            let chain = session.peer_certificates().unwrap_or_default();
            let peer = Peer { address, certificates: chain.into() };
            Some(connection(stream, protocol, peer, routes, flight, watcher))
        });
        async move {
            if let Some(connection) = greeting.await {
                connection.await;
            }
        }
    })
    .await;
}

/// The stream, if a handshake made one of it.
fn shaken_hands<S>(
    shaken: Result<io::Result<Option<S>>, Elapsed>,
    address: SocketAddr,
) -> Option<S> {
    match shaken {
        Ok(Ok(Some(stream))) => return Some(stream),
        Ok(Ok(None)) => {
            tracing::debug!(peer.address = %address, "Answered plain HTTP on a TLS port.");
        }
        Ok(Err(error)) => {
            tracing::info!(peer.address = %address, %error, "Refused a TLS connection.");
        }
        Err(_) => {
            tracing::info!(peer.address = %address, "Dropped a caller too slow to shake hands.");
        }
    }
    None
}

/// Ends when callers who did not begin to ask should not hold up the end of the process any longer.
async fn out_of_patience(stopping: CancellationToken) {
    stopping.cancelled().await;
    sleep(PATIENCE_AT_THE_END).await;
}

/// Accepts until cancelled, each connection on a task of its own; then drains.
async fn accept<F, Serving>(listener: TcpListener, shutdown: CancellationToken, serve: F)
where
    F: Fn(TcpStream, SocketAddr, Watcher) -> Serving,
    Serving: Future<Output = ()> + Send + 'static,
{
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, address)) => {
                // Answers are small and latency is what we are here for.
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream, address, graceful.watcher()));
            }
            Err(error) => {
                // Out of file descriptors, most likely: others must end before we can go on.
                tracing::warn!(%error, "Could not accept a connection.");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    if timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("Gave up waiting for requests in flight.");
    }
}

/// Shakes hands, or answers plain HTTP and returns `None`.
async fn handshake(
    acceptor: &TlsAcceptor,
    turns: &Turns,
    mut stream: TcpStream,
) -> io::Result<Option<tokio_rustls::server::TlsStream<TcpStream>>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first != [TLS_HANDSHAKE] {
        stream.write_all(PLAIN_HTTP_ON_TLS).await?;
        stream.shutdown().await?;
        return Ok(None);
    }
    turns.take(acceptor.accept(stream)).await.map(Some)
}

/// A connection that is being served. Thousands of them are open while cells wait for changes, so each
/// takes the room of what is spoken on it, once, and not that of everything it passed on the way.
type Connection = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves one connection until it ends or the drain is over.
fn connection<S>(
    stream: S,
    protocol: Protocol,
    peer: Peer,
    routes: Router,
    flight: Flight,
    watcher: Watcher,
) -> Connection
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let address = peer.address;
    let reader = Reader::new();
    let answered = reader.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (flight, reader) = (flight.clone(), answered.clone());
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        let answering = routes.clone().oneshot(request);
        async move {
            let answer = infallible(answering.await);
            Ok::<_, Infallible>(flight.carry(answer, &reader))
        }
    });
    let stream = TokioIo::new(stream);
    match protocol {
        Protocol::Http1 => {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(IDLE);
            let serving = builder.serve_connection(stream, service);
            served(watcher.watch(serving), reader, address)
        }
        Protocol::Http2 => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(20));
            // Names and values of headers that are remembered keep the buffers they came in; sent again
            // with each poll, they cost a cell two hundred bytes a minute.
            builder.header_table_size(0);
            let serving = builder.serve_connection(stream, service);
            served(watcher.watch(serving), reader, address)
        }
    }
}

/// Lets `serving` go on as long as `reader` reads.
fn served(
    serving: impl Future<Output = hyper::Result<()>> + Send + 'static,
    reader: Arc<Reader>,
    address: SocketAddr,
) -> Connection {
    let mut serving = Box::pin(serving);
    Box::pin(async move {
        tokio::select! {
            served = &mut serving => if let Err(error) = served {
                tracing::debug!(peer.address = %address, %error, "A connection ended early.");
            },
            () = reader.stalls() => {
                tracing::info!(peer.address = %address, "Dropped a caller who does not read the answer.");
            }
        }
    })
}

fn infallible<T>(result: Result<T, Infallible>) -> T {
    match result {
        Ok(value) => value,
        Err(never) => match never {},
    }
}
