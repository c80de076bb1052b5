//! Several addresses, and certificates that are renewed.

use std::{fs, net::TcpListener};

use super::*;

/// An address where nobody is.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("https://{}", listener.local_addr().unwrap())
}

fn client(server: &Server, urls: Vec<String>) -> Client {
    Client::new(&Settings { urls, ..server.settings() }).unwrap()
}

#[tokio::test]
async fn where_nobody_is_the_next_address_is_asked_and_remembered() {
    let server = Server::start().await;
    // Whichever it begins with.
    for _ in 0..4 {
        let client = client(&server, vec![nowhere(), server.url.clone(), nowhere()]);
        for _ in 0..2 {
            server.will(Reply::ok("{\"leases\":[]}"));
            client.leases(None, None).await.unwrap();
        }
        assert_eq!(client.addresses.last(), 1);
    }
    let client = client(&server, vec![nowhere(), nowhere()]);
    assert!(client.leases(None, None).await.unwrap_err().is_unreachable());
}

#[tokio::test]
async fn a_server_in_trouble_is_passed_over_but_a_refusal_is_the_answer() {
    let server = Server::start().await;
    let client = client(&server, vec![server.url.clone(), server.url.clone()]);
    server.will(Reply::status(500).body("{\"error\":\"database read failed\"}"));
    server.will(Reply::ok("{\"leases\":[]}"));
    client.leases(None, None).await.unwrap();
    server.will(Reply::status(409).body("{\"error\":\"lease mismatch\"}"));
    let error = client.renew(&lease("10.255.30.0/24")).await.unwrap_err();
    assert!(matches!(error, ClientError::RenewalRefused { .. }), "{error}");
    assert_eq!(server.unseen(), 3, "a refusal was asked for twice");
}

#[tokio::test]
async fn a_client_for_each_address_asks_only_there() {
    let server = Server::start().await;
    let urls = vec![nowhere(), server.url.clone()];
    let each = Client::each(&Settings { urls, ..server.settings() }).unwrap();
    server.will(Reply::ok("{\"leases\":[]}"));
    assert!(each[0].leases(None, None).await.unwrap_err().is_unreachable());
    each[1].leases(None, None).await.unwrap();
}

#[tokio::test]
async fn renewed_certificates_are_used_without_a_new_client() {
    let (server, stranger) = (Server::start().await, Server::start().await);
    let (ours, theirs) = (server.settings(), stranger.settings());
    // As if the certificates of all had been issued anew, by another authority.
    let renew = |from: &Settings, to: &Settings, key_too: bool| {
        fs::copy(&from.ca_cert_file, &to.ca_cert_file).unwrap();
        fs::copy(&from.client_cert_file, &to.client_cert_file).unwrap();
        if key_too {
            fs::copy(&from.client_key_file, &to.client_key_file).unwrap();
        }
    };
    let client = Client::new(&Settings { urls: vec![server.url.clone()], ..theirs.clone() });
    let client = client.unwrap();
    assert!(client.leases(None, None).await.unwrap_err().is_unreachable());

    renew(&ours, &theirs, false);
    assert!(client.leases(None, None).await.is_err(), "the key is still the old one");
    renew(&ours, &theirs, true);
    server.will(Reply::ok("{\"leases\":[]}"));
    client.leases(None, None).await.unwrap();

    fs::write(&theirs.client_cert_file, "").unwrap();
    server.will(Reply::ok("{\"leases\":[]}"));
    client.leases(None, None).await.expect("half a renewal takes nothing away");
}
