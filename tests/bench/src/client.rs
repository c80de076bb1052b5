//! Connections to the server, kept open, that read answers without looking into them.

use std::{net::SocketAddr, path::Path, sync::Arc};

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
    header::{AUTHORIZATION, HOST},
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// A request, ready to be sent as often as wanted.
pub(crate) type Call = Request<Full<Bytes>>;

/// Where requests go, and by what right.
#[derive(Clone)]
pub(crate) struct Door {
    address: SocketAddr,
    right: Right,
}

#[derive(Clone)]
enum Right {
    Token(String),
    Certificate(TlsConnector),
}

/// A connection on which one request follows the other.
pub(crate) struct Connection(SendRequest<Full<Bytes>>);

impl Door {
    /// The external API, for the bearer of `token`.
    pub(crate) fn external(address: SocketAddr, token: &str) -> Self {
        Self { address, right: Right::Token(format!("Bearer {token}")) }
    }

    /// The internal API, for a cell with the certificate `agent` that trusts `authority`.
    pub(crate) fn internal(address: SocketAddr, pki: &Path) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(pki.join("ca.crt"))?)?;
        let certificate = CertificateDer::from_pem_file(pki.join("agent.crt"))?;
        let key = PrivateKeyDer::from_pem_file(pki.join("agent.key"))?;
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)?;
        Ok(Self { address, right: Right::Certificate(Arc::new(config).into()) })
    }

    pub(crate) fn get(&self, path: &str) -> Result<Call> {
        self.call(Method::GET, path, Bytes::new())
    }

    pub(crate) fn post(&self, path: &str, body: Bytes) -> Result<Call> {
        self.call(Method::POST, path, body)
    }

    fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Call> {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(HOST, self.address.to_string());
        if let Right::Token(bearer) = &self.right {
            request = request.header(AUTHORIZATION, bearer);
        }
        Ok(request.body(Full::new(body))?)
    }

    pub(crate) async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(self.address).await.context("connecting to the server")?;
        stream.set_nodelay(true)?;
        match &self.right {
            Right::Token(_) => open(stream).await,
            Right::Certificate(tls) => {
                let name = ServerName::IpAddress(self.address.ip().into());
                open(tls.connect(name, stream).await.context("the TLS handshake")?).await
            }
        }
    }
}

async fn open(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Connection> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its end shows in the requests that then fail.
    tokio::spawn(connection);
    Ok(Connection(sender))
}

impl Connection {
    /// Sends `call` and reads the answer to its end. How long it was.
    pub(crate) async fn ask(&mut self, call: Call) -> Result<usize> {
        self.0.ready().await.context("the server closed a connection")?;
        let response = self.0.send_request(call).await.context("asking the server")?;
        let (status, mut body) = (response.status(), response.into_body());
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame.context("reading an answer")?.data_ref().map_or(0, Bytes::len);
        }
        ensure!(status == StatusCode::OK, "the server answered {status}");
        Ok(length)
    }

    /// Sends `call` and keeps the answer's body.
    pub(crate) async fn read(&mut self, call: Call) -> Result<Bytes> {
        Ok(self.whole(call).await?.into_body())
    }

    /// Sends `call` and keeps the answer.
    pub(crate) async fn whole(&mut self, call: Call) -> Result<Response<Bytes>> {
        self.0.ready().await?;
        let (head, body) = self.0.send_request(call).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        ensure!(head.status.is_success(), "the server answered {}", head.status);
        Ok(Response::from_parts(head, body))
    }
}
