//! The listeners as a stranger meets them: over real sockets, with real certificates.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::{Extension, Router, routing::get};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::{ClientConfig, HandshakeKind, pki_types::ServerName};
use service::{
    serve::Peer,
    tls::{Identity, Outbound},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::authority::{Authority, Files};

/// More than sockets and protocols take before anybody reads.
const LONG: usize = 64 << 20;

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
        let routes = Router::new()
            .route("/", get(count))
            .route("/slow", get(slow))
            .route("/long", get(|| async { vec![b'x'; LONG] }));
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

#[tokio::test(start_paused = true)]
async fn a_caller_who_does_not_read_an_answer_is_let_go() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Router::new().route("/", get(|| async { vec![b'x'; LONG] }));
    tokio::spawn(service::serve::http(listener, routes, CancellationToken::new()));
    let ask = async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let question = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(question).await.unwrap();
        stream
    };
    let read = async |mut stream: TcpStream| {
        let mut answer = Vec::new();
        // Whether it is told of its end or just cut off is the kernel's to choose.
        let _ = stream.read_to_end(&mut answer).await;
        answer.len()
    };
    let idle = ask().await;
    idle.peek(&mut [0]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(40)).await;
    tokio::time::resume();
    let length = read(idle).await;
    assert!(length < LONG, "{length} bytes waited for somebody who did not read");
    assert!(read(ask().await).await > LONG);
}

/// HTTP/2 keeps what nobody makes room for, while the connection is alive and well.
#[tokio::test(start_paused = true)]
async fn a_caller_who_does_not_make_room_for_an_answer_is_let_go() {
    let listener = Listener::start().await;
    let identity = listener.authority.client(ExtendedKeyUsagePurpose::ClientAuth);
    let client = listener.client(Some(identity));
    let idle = client.get(listener.url("/long")).send().await.unwrap();
    assert_eq!(idle.version(), reqwest::Version::HTTP_2);
    tokio::time::sleep(Duration::from_secs(40)).await;
    tokio::time::resume();
    assert!(idle.bytes().await.is_err());
    let prompt = client.get(listener.url("/long")).send().await.unwrap();
    assert_eq!(prompt.bytes().await.unwrap().len(), LONG);
}

/// One connection; how its handshake went, and how many certificates a handler saw.
async fn call(listener: &Listener, config: &Arc<ClientConfig>) -> (HandshakeKind, String) {
    let stream = TcpStream::connect(listener.address).await.unwrap();
    let name = ServerName::IpAddress(listener.address.ip().into());
    let mut stream = TlsConnector::from(config.clone()).connect(name, stream).await.unwrap();
    let question = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(question).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let kind = stream.get_ref().1.handshake_kind().unwrap();
    (kind, answer.rsplit("\r\n").next().unwrap().to_owned())
}

/// More callers than the library would remember by itself.
#[tokio::test]
async fn any_number_of_callers_is_known_by_their_tickets() {
    let (listener, files) = (Listener::start().await, Files::new());
    let (certificate, key) = listener.authority.issue(&[], ExtendedKeyUsagePurpose::ClientAuth);
    let outbound = Outbound {
        authorities: vec![files.write("ca.crt", &listener.authority.pem)],
        identity: Some(Identity {
            certificate: files.write("client.crt", &certificate),
            key: files.write("client.key", &key),
        }),
        skip_verification: false,
    };
    let callers: Vec<_> = (0..300).map(|_| Arc::new(outbound.client().unwrap())).collect();
    for wanted in [HandshakeKind::Full, HandshakeKind::Resumed] {
        for caller in &callers {
            assert_eq!(call(&listener, caller).await, (wanted, "1".to_owned()));
        }
    }
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
