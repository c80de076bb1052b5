//! A policy server that answers from a script and remembers what it was asked.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderMap, Method},
    response::Response,
};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::internal::{Client, Settings};

pub struct Server {
    pub url: String,
    pub files: TempDir,
    script: Arc<Script>,
    _stop: DropGuard,
}

#[derive(Default)]
struct Script {
    replies: std::sync::Mutex<VecDeque<Reply>>,
    asked: std::sync::Mutex<VecDeque<Asked>>,
}

#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

#[derive(Debug)]
pub struct Asked {
    pub method: Method,
    pub uri: String,
    headers: HeaderMap,
    pub body: String,
}

impl Reply {
    pub fn ok(body: &str) -> Self {
        Self::status(200).body(body)
    }

    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }

    pub fn etag(self, etag: &str) -> Self {
        self.header("ETag", etag)
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub fn body(self, body: &str) -> Self {
        Self { body: body.to_owned(), ..self }
    }
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Server {
    pub async fn start() -> Self {
        service::install_crypto_provider();
        let files = certificates();
        let path = |name: &str| files.path().join(name);
        let tls =
            service::tls::mutual_server(&path("ca.crt"), &path("server.crt"), &path("server.key"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let script = Arc::new(Script::default());
        let plays = script.clone();
        let routes = Router::new().fallback(move |request| plays.clone().play(request));
        let shutdown = CancellationToken::new();
        tokio::spawn(service::serve::https(listener, tls.unwrap(), routes, shutdown.clone()));
        Self { url, files, script, _stop: shutdown.drop_guard() }
    }

    pub fn settings(&self) -> Settings {
        let path = |name: &str| self.files.path().join(name);
        Settings {
            urls: vec![self.url.clone()],
            ca_cert_file: path("ca.crt"),
            client_cert_file: path("agent.crt"),
            client_key_file: path("agent.key"),
            timeout: Duration::from_secs(10),
            cell: Some("cell-1".to_owned()),
        }
    }

    pub fn client(&self) -> Client {
        Client::new(&self.settings()).unwrap()
    }

    pub fn will(&self, reply: Reply) {
        self.script.replies.lock().unwrap().push_back(reply);
    }

    /// How many requests have come that were not looked at yet.
    pub fn unseen(&self) -> usize {
        self.script.asked.lock().unwrap().len()
    }

    /// The oldest request not looked at yet.
    pub fn asked(&self) -> Asked {
        self.script.asked.lock().unwrap().pop_front().expect("a request has been answered")
    }
}

impl Script {
    async fn play(self: Arc<Self>, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        self.asked.lock().unwrap().push_back(Asked {
            method: parts.method,
            uri: parts.uri.path_and_query().unwrap().to_string(),
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        });
        let next = self.replies.lock().unwrap().pop_front();
        let Some(Reply { status, headers, body }) = next else {
            return std::future::pending().await;
        };
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        response.body(Body::from(body)).unwrap()
    }
}

/// An authority, a server certificate for 127.0.0.1 and a client certificate.
fn certificates() -> TempDir {
    let files = TempDir::new().unwrap();
    let write = |name: &str, text: &str| std::fs::write(files.path().join(name), text).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    write("ca.crt", &params.self_signed(&key).unwrap().pem());
    let issuer = Issuer::new(params, key);
    for (name, purpose) in [
        ("server", ExtendedKeyUsagePurpose::ServerAuth),
        ("agent", ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        write(&format!("{name}.crt"), &params.signed_by(&key, &issuer).unwrap().pem());
        write(&format!("{name}.key"), &key.serialize_pem());
    }
    files
}
