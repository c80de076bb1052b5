//! The listeners as a stranger meets them: over real sockets, with real certificates.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::{Extension, Router, routing::get};
use rcgen::ExtendedKeyUsagePurpose;
use service::serve::Peer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

use crate::authority::Authority;

struct Listener {
    address: SocketAddr,
    authority: Authority,
    entered: Arc<Notify>,
    release: Arc<Notify>,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<()>,
    _files: tempfile::TempDir,
}

impl Listener {
    async fn start() -> Self {
        service::install_crypto_provider();
        let authority = Authority::new();
        let files = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = files.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (certificate, key) =
            authority.issue(&["127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth);
        let tls = service::tls::mutual_server(
            &write("ca.crt", &authority.pem),
            &write("server.crt", &certificate),
            &write("server.key", &key),
        )
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let count =
            |Extension(peer): Extension<Peer>| async move { peer.certificates.len().to_string() };
        let entered = Arc::new(Notify::new());
        let release = Arc::new(Notify::new());
        let (inside, leave) = (entered.clone(), release.clone());
        let slow = move || async move {
            inside.notify_one();
            leave.notified().await;
            "done"
        };
        let routes = Router::new().route("/", get(count)).route("/slow", get(slow));
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(service::serve::https(listener, tls, routes, shutdown.clone()));
        Self { address, authority, entered, release, shutdown, served, _files: files }
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    fn client(&self, identity: Option<reqwest::Identity>) -> reqwest::Client {
        let root = reqwest::Certificate::from_pem(self.authority.pem.as_bytes()).unwrap();
        let mut builder = reqwest::Client::builder().tls_certs_only([root]).no_proxy();
        if let Some(identity) = identity {
            builder = builder.identity(identity);
        }
        builder.build().unwrap()
    }
}

#[tokio::test]
async fn a_client_certificate_of_our_authority_is_let_in_and_shown_to_handlers() {
    let listener = Listener::start().await;
    let identity = listener.authority.client(ExtendedKeyUsagePurpose::ClientAuth);
    let answer = listener.client(Some(identity)).get(listener.url("/")).send().await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    assert_eq!(answer.text().await.unwrap(), "1");
}

#[tokio::test]
async fn other_callers_are_refused() {
    let listener = Listener::start().await;
    let foreign = Authority::new().client(ExtendedKeyUsagePurpose::ClientAuth);
    let wrong_purpose = listener.authority.client(ExtendedKeyUsagePurpose::ServerAuth);
    for (who, identity) in
        [("nobody", None), ("a foreigner", Some(foreign)), ("a server", Some(wrong_purpose))]
    {
        let answer = listener.client(identity).get(listener.url("/")).send().await;
        assert!(answer.is_err(), "{who} was let in");
    }
}

#[tokio::test]
async fn plain_http_on_the_tls_port_gets_a_400() {
    let listener = Listener::start().await;
    let mut stream = TcpStream::connect(listener.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 400 Bad Request\r\n"), "{answer}");
}

#[tokio::test]
async fn a_request_in_flight_ends_well_after_the_signal() {
    let listener = Listener::start().await;
    let identity = listener.authority.client(ExtendedKeyUsagePurpose::ClientAuth);
    let client = listener.client(Some(identity));
    let request = tokio::spawn(client.get(listener.url("/slow")).send());
    listener.entered.notified().await;
    listener.shutdown.cancel();
    listener.release.notify_one();
    assert_eq!(request.await.unwrap().unwrap().text().await.unwrap(), "done");
    tokio::time::timeout(Duration::from_secs(5), listener.served).await.unwrap().unwrap();
}

/// The clock of the test stands still while anybody has anything to do, and then jumps.
#[tokio::test(start_paused = true)]
async fn a_caller_who_does_not_say_anything_is_let_go() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    tokio::spawn(service::serve::http(listener, Router::new(), shutdown.clone()));
    // The second begins like HTTP/2, like PUT, and like POST.
    for beginning in [&b""[..], b"P", b"GET / HTTP/1.1\r\nHost: x\r\n"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(beginning).await.unwrap();
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        let ended = tokio::time::timeout(Duration::from_secs(600), ended).await;
        assert!(ended.is_ok(), "{} bytes hold a connection for ever", beginning.len());
    }
    shutdown.cancel();
}

#[tokio::test]
async fn unreadable_certificates_are_named() {
    service::install_crypto_provider();
    let missing = Path::new("/does/not/exist.crt");
    let error = service::tls::mutual_server(missing, missing, missing).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unable to load cert or key: the certificate in /does/not/exist.crt"
    );
}
