//! Certificates that change under a running listener.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    time::{Duration, Instant},
};

use axum::{Router, routing::get};
use rcgen::ExtendedKeyUsagePurpose;
use service::tls::{Identity, Outbound, Server};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::authority::{Authority, Files};

async fn listen(server: Server) -> SocketAddr {
    let tls = service::tls::follow(server).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Router::new().route("/", get(|| async { "hello" }));
    tokio::spawn(service::serve::https(listener, tls, routes, CancellationToken::new()));
    address
}

/// A caller who believes those whom `authority` signed for, and connects anew.
async fn believes(files: &Files, authority: &Authority, address: SocketAddr) -> bool {
    let bundle = files.write("believed.crt", &authority.pem);
    let outbound = Outbound { authorities: vec![bundle], ..Outbound::default() };
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(outbound.client().unwrap())
        .no_proxy()
        .build()
        .unwrap();
    client.get(format!("https://{address}/")).send().await.is_ok()
}

async fn eventually(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !look().await {
        assert!(started.elapsed() < Duration::from_secs(20), "gave up waiting until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_new_certificate_is_shown_without_a_restart_and_a_broken_one_is_not() {
    let (files, callers, old, new) =
        (Files::new(), Files::new(), Authority::new(), Authority::new());
    let address = listen(Server { identity: files.server(&old), clients: None }).await;
    assert!(believes(&callers, &old, address).await);
    assert!(!believes(&callers, &new, address).await);

    // A certificate without its key, and then nothing at all: the old pair stays.
    let (stranger, _) = new.issue(&["127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth);
    files.write("server.crt", &stranger);
    assert!(believes(&callers, &old, address).await);
    fs::remove_file(files.path("server.key")).unwrap();
    assert!(believes(&callers, &old, address).await);

    files.server(&new);
    eventually("the new certificate is shown", async || believes(&callers, &new, address).await)
        .await;
    assert!(!believes(&callers, &old, address).await);
}

/// As Kubernetes and others do it: the files stay links, and what they lead through is swapped.
#[tokio::test]
async fn a_swapped_link_is_noticed() {
    let (files, callers, old, new) =
        (Files::new(), Files::new(), Authority::new(), Authority::new());
    for (name, authority) in [("first", &old), ("second", &new)] {
        let written = files.server(authority);
        fs::create_dir(files.path(name)).unwrap();
        fs::rename(written.certificate, files.path(name).join("server.crt")).unwrap();
        fs::rename(written.key, files.path(name).join("server.key")).unwrap();
    }
    symlink("first", files.path("now")).unwrap();
    let link = |name: &str| {
        symlink(format!("now/{name}"), files.path(name)).unwrap();
        files.path(name)
    };
    let identity = Identity { certificate: link("server.crt"), key: link("server.key") };
    let address = listen(Server { identity, clients: None }).await;
    assert!(believes(&callers, &old, address).await);

    symlink("second", files.path("next")).unwrap();
    fs::rename(files.path("next"), files.path("now")).unwrap();
    eventually("the new certificate is shown", async || believes(&callers, &new, address).await)
        .await;
}

#[tokio::test]
async fn callers_of_a_new_authority_are_let_in_and_those_of_the_old_one_are_not() {
    let (files, old, new) = (Files::new(), Authority::new(), Authority::new());
    let identity = files.server(&old);
    let clients = files.write("clients.crt", &old.pem);
    let address = listen(Server { identity, clients: Some(clients) }).await;
    let root = reqwest::Certificate::from_pem(old.pem.as_bytes()).unwrap();
    let let_in = async |authority: &Authority| {
        let identity = authority.client(ExtendedKeyUsagePurpose::ClientAuth);
        let builder = reqwest::Client::builder().tls_certs_only([root.clone()]).no_proxy();
        let client = builder.identity(identity).build().unwrap();
        client.get(format!("https://{address}/")).send().await.is_ok()
    };
    assert!(let_in(&old).await);
    assert!(!let_in(&new).await);
    files.write("clients.crt", &new.pem);
    eventually("the new authority counts", async || let_in(&new).await).await;
    assert!(!let_in(&old).await);
}
