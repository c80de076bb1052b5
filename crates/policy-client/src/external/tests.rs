//! Against a server of our own that answers one request from a script, over real sockets.

mod server;

use std::path::Path;

use policy::Policy;
use policy::wire::v1::PolicyList;
use proptest::prelude::*;

use super::*;
use server::{Server, answer};

fn settings(url: &str) -> Settings {
    Settings {
        url: url.to_owned(),
        token: "geheim".parse().unwrap(),
        ca_cert_file: None,
        timeout: Duration::from_secs(10),
    }
}

fn client(server: &Server) -> Client {
    Client::new(&settings(&server.url)).unwrap()
}

fn policy(source: &str, destination: &str) -> Policy {
    Policy {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        protocol: policy::Protocol::Tcp,
        ports: "7000-7010".parse().unwrap(),
    }
}

fn apps(names: &[&str]) -> std::collections::BTreeSet<policy::AppGuid> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

const BODY: &str = r#"{"total_policies":1,"policies":[{"source":{"id":"web"},"destination":{"id":"db","protocol":"tcp","ports":{"start":7000,"end":7010}}}]}"#;

#[test]
fn a_change_is_sent_with_the_token_and_answered_with_its_revision() {
    let server = Server::answering(&answer(200, "Netman-Revision: life.7\r\n", "{}"));
    let version = client(&server).create(&[policy("web", "db")]).unwrap();
    assert_eq!(version.unwrap().to_string(), "life.7");
    let asked = server.asked();
    assert!(asked.starts_with("POST /networking/v1/external/policies HTTP/1.1\r\n"), "{asked}");
    assert!(asked.to_lowercase().contains("authorization: bearer geheim\r\n"), "{asked}");
    assert!(asked.ends_with(BODY), "{asked}");

    let server = Server::answering(&answer(200, "", "{}"));
    assert_eq!(client(&server).delete(&[policy("web", "db")]).unwrap(), None, "an old server");
    let asked = server.asked();
    assert!(asked.starts_with("POST /networking/v1/external/policies/delete HTTP/1.1"), "{asked}");
}

#[test]
fn a_list_is_asked_for_by_whom_it_concerns() {
    let between = |sources: Option<&[&str]>, destinations: Option<&[&str]>| Filter::Between {
        sources: sources.map(apps),
        destinations: destinations.map(apps),
    };
    for (filter, query) in [
        (Filter::All, ""),
        (Filter::Concerning(apps(&["b", "a c"])), "?id=a%20c%2Cb"),
        (Filter::Concerning(apps(&[])), "?id="),
        (between(Some(&["a"]), None), "?source_id=a"),
        (between(Some(&["a"]), Some(&["b"])), "?source_id=a&dest_id=b"),
        (between(None, None), ""),
    ] {
        let server = Server::answering(&answer(200, "", BODY));
        assert_eq!(client(&server).list(&filter).unwrap(), vec![policy("web", "db")]);
        let asked = server.asked();
        let expected = format!("GET /networking/v1/external/policies{query} HTTP/1.1\r\n");
        assert!(asked.starts_with(&expected), "{asked}");
    }
}

#[test]
fn a_status_is_asked_for_and_must_be_one() {
    let body = r#"{"life":"life","revision":9,"cells":[{"cell":"cell-1","enforced":7,"wanted":9,"silent_seconds":0.5,"apps":3}]}"#;
    let server = Server::answering(&answer(200, "", body));
    let status = client(&server).status(Some(&apps(&["web", "db"]))).unwrap();
    assert_eq!((status.revision, status.cells[0].enforced), (9, Some(7)));
    assert!(server.asked().starts_with("GET /networking/v1/external/status?id=db%2Cweb HTTP/1.1"));

    let server = Server::answering(&answer(200, "", "{}"));
    client(&server).status(Some(&apps(&["web"]))).unwrap_err();
}

#[test]
fn a_refusal_carries_the_servers_words() {
    let headers = "X-Vcap-Request-Id: id-1\r\n";
    let server = Server::answering(&answer(403, headers, "{\"error\": \"policy quota exceeded\"}"));
    let error = client(&server).create(&[policy("web", "db")]).unwrap_err();
    let expected = format!(
        "POST {}/networking/v1/external/policies was refused with status 403: \
         policy quota exceeded",
        server.url
    );
    assert_eq!(error.to_string(), expected);
    assert!(matches!(error, ClientError::Refused { request_id: Some(id), .. } if id == "id-1"));
}

#[test]
fn a_token_is_not_taken_elsewhere() {
    let other = Server::answering(&answer(200, "", BODY));
    let redirect = format!("Location: {}/networking/v1/external/policies\r\n", other.url);
    let server = Server::answering(&answer(302, &redirect, ""));
    let error = client(&server).list(&Filter::All).unwrap_err();
    assert!(matches!(error, ClientError::Refused { status: 302, .. }), "{error}");
    assert!(other.was_left_alone());
}

#[test]
fn nobody_there_and_nobody_answering_are_both_unreachable() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{");
    let error = client(&server).list(&Filter::All).unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "cut short: {error}");

    let error = client(&server).list(&Filter::All).unwrap_err();
    let expected = format!("no answer from GET {}/networking/v1/external/policies", server.url);
    assert_eq!(error.to_string(), expected, "the server took one request only");

    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let settings = Settings { timeout: Duration::from_millis(50), ..settings(&url) };
    let error = Client::new(&settings).unwrap().list(&Filter::All).unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "too slow: {error}");
}

#[test]
fn https_is_verified_against_the_authority_that_was_named() {
    let (server, authority) = Server::answering_over_tls(&answer(200, "", BODY));
    let trusting = Settings { ca_cert_file: Some(authority.clone()), ..settings(&server.url) };
    let listed = Client::new(&trusting).unwrap().list(&Filter::All).unwrap();
    assert_eq!(listed, vec![policy("web", "db")]);

    let (other, _) = Server::answering_over_tls(&answer(200, "", BODY));
    let mistaken = Settings { url: other.url.clone(), ..trusting };
    let error = Client::new(&mistaken).unwrap().list(&Filter::All).unwrap_err();
    let chain = service::log::chain(&error);
    assert!(chain.to_lowercase().contains("certificate"), "{chain}");
}

#[test]
fn the_address_of_the_api_is_as_good_as_the_servers() {
    let expected = "https://api.example.org/networking/v1/external";
    for url in [
        "https://api.example.org",
        "https://api.example.org/",
        "https://api.example.org/networking/v1/external",
        "https://api.example.org/networking/v1/external/",
    ] {
        assert_eq!(api(url).unwrap(), expected);
    }
    assert_eq!(api("http://[::1]:4002/x").unwrap(), "http://[::1]:4002/x/networking/v1/external");
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    let refused = |url: &str, authority: Option<&Path>| {
        let ca_cert_file = authority.map(Path::to_owned);
        let settings = Settings { ca_cert_file, ..settings(url) };
        Client::new(&settings).unwrap_err().to_string()
    };
    for (url, reason) in [
        ("", "it is no address"),
        ("ftp://x", "it does not begin with http:// or https://"),
        ("api.example.org", "it does not begin with http:// or https://"),
        ("http://x?y", "it has a query"),
    ] {
        let expected = format!("server url {url:?} cannot be used: {reason}");
        assert_eq!(refused(url, None), expected);
    }
    let text = refused("http://admin:geheim@x", None);
    assert!(!text.contains("geheim"), "{text}");
    let missing = Path::new("/does/not/exist");
    let expected = "reading certificate authorities from /does/not/exist";
    assert_eq!(refused("http://x", Some(missing)), expected);
    let empty = Path::new("/dev/null");
    assert_eq!(refused("http://x", Some(empty)), "/dev/null holds no certificate");
}

#[test]
fn nothing_shows_the_token() {
    let client = Client::new(&settings("http://x")).unwrap();
    let shown = format!("{client:?}{:?}", settings("http://x"));
    assert!(!shown.contains("geheim"), "{shown}");
}

proptest! {
    #[test]
    fn any_bytes_as_an_answer_are_understood_or_refused(
        noise: Vec<u8>, at in 0..BODY.len(), with: u8,
    ) {
        let _ = policies::read(&noise);
        let mut nearly = BODY.as_bytes().to_vec();
        nearly[at] = with;
        if let Ok(policies) = policies::read(&nearly) {
            prop_assert_eq!(policies.len(), 1);
        }
        prop_assert!(policies::read(&nearly[..at]).is_err());
    }

    #[test]
    fn what_is_sent_is_what_is_listed(source in "[^,]{1,8}", destination in "[^,]{1,8}") {
        let policies = vec![policy(&source, &destination)];
        let body = gocompat::json::to_string(&PolicyList::of(&policies));
        prop_assert_eq!(policies::read(body.as_bytes()).unwrap(), policies);
    }
}
