//! Whom we believe when we call, and what we show.

use std::{net::SocketAddr, path::PathBuf};

use axum::{Extension, Router, routing::get};
use rcgen::ExtendedKeyUsagePurpose;
use service::{
    serve::Peer,
    tls::{Identity, Outbound, Server},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::authority::{Authority, Files};

/// A server that says how many certificates its caller showed, and in which version of HTTP.
async fn server(files: &Files, authority: &Authority, clients: Option<PathBuf>) -> SocketAddr {
    let tls = Server { identity: files.server(authority), clients }.load().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let told = |Extension(peer): Extension<Peer>, request: axum::extract::Request| async move {
        format!("{} {:?}", peer.certificates.len(), request.version())
    };
    let routes = Router::new().route("/", get(told));
    tokio::spawn(service::serve::https(listener, tls, routes, CancellationToken::new()));
    address
}

async fn call(outbound: &Outbound, address: SocketAddr) -> Result<String, reqwest::Error> {
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(outbound.client().unwrap())
        .no_proxy()
        .build()?;
    client.get(format!("https://{address}/")).send().await?.text().await
}

fn trusting(authorities: &[PathBuf]) -> Outbound {
    Outbound { authorities: authorities.to_vec(), ..Outbound::default() }
}

#[tokio::test]
async fn a_server_is_believed_when_any_of_the_bundles_vouches_for_it() {
    let (files, ours, other) = (Files::new(), Authority::new(), Authority::new());
    let address = server(&files, &ours, None).await;
    let ours = files.write("ours.crt", &ours.pem);
    let other = files.write("other.crt", &other.pem);
    let empty = files.write("empty.crt", "\n");
    for bundles in [&[ours.clone()][..], &[other.clone(), ours.clone()], &[empty.clone(), ours]] {
        let answer = call(&trusting(bundles), address).await;
        assert_eq!(answer.unwrap(), "0 HTTP/1.1", "{bundles:?}");
    }
    // Where nothing is added, the system's authorities count, and they do not know ours.
    for bundles in [&[other][..], &[empty], &[]] {
        assert!(call(&trusting(bundles), address).await.is_err(), "{bundles:?}");
    }
}

#[tokio::test]
async fn a_server_of_another_name_is_not_believed() {
    let (files, authority) = (Files::new(), Authority::new());
    let address = server(&files, &authority, None).await;
    let outbound = trusting(&[files.write("ca.crt", &authority.pem)]);
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(outbound.client().unwrap())
        .resolve("other.example", address)
        .build()
        .unwrap();
    assert!(client.get(format!("https://other.example:{}", address.port())).send().await.is_err());
}

#[tokio::test]
async fn who_skips_verification_believes_anybody_and_opens_no_bundle() {
    let (files, authority) = (Files::new(), Authority::new());
    let address = server(&files, &authority, None).await;
    let outbound = Outbound { skip_verification: true, ..trusting(&["/some/ca/cert".into()]) };
    assert_eq!(call(&outbound, address).await.unwrap(), "0 HTTP/1.1");
}

#[test]
fn a_bundle_that_cannot_be_used_is_named() {
    let files = Files::new();
    let fault = |path: PathBuf| trusting(&[path]).client().unwrap_err().to_string();
    assert_eq!(fault("/some/ca/cert".into()), "failed read ca cert file: /some/ca/cert");
    let garbage = files.write("ca.crt", "garbage");
    assert_eq!(fault(garbage.clone()), format!("Unable to load caCert from {}", garbage.display()));
}

#[tokio::test]
async fn a_server_that_asks_is_shown_our_certificate() {
    let (files, authority) = (Files::new(), Authority::new());
    let bundle = files.write("ca.crt", &authority.pem);
    let address = server(&files, &authority, Some(bundle.clone())).await;
    let (certificate, key) = authority.issue(&[], ExtendedKeyUsagePurpose::ClientAuth);
    let identity = Identity {
        certificate: files.write("client.crt", &certificate),
        key: files.write("client.key", &key),
    };
    let known = Outbound { identity: Some(identity), ..trusting(std::slice::from_ref(&bundle)) };
    assert_eq!(call(&known, address).await.unwrap(), "1 HTTP/1.1");
    assert!(call(&trusting(&[bundle]), address).await.is_err(), "nobody was let in");
}
