//! Against a server of our own, over real TLS, that answers from a script.

mod changes;
mod groups;
mod proxies;
mod server;
mod several;

use std::collections::BTreeSet;

use axum::http::Method;
use policy::{AppGuid, Lease, Tag, TagLength, TaggedPolicy, Version, wire::v1};
use proptest::prelude::*;
use tokio::net::TcpListener;

use super::*;
use server::{Reply, Server};

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn apps(names: &[&str]) -> BTreeSet<AppGuid> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn lease(subnet: &str) -> Lease {
    Lease::new("10.0.16.14".parse().unwrap(), subnet.parse().unwrap())
}

fn question(names: &[&str], known: Option<&str>, wait: Option<u64>) -> Question {
    let (known, wait) = (known.map(version), wait.map(Duration::from_secs));
    Question { apps: apps(names), known, wait, ..Question::default() }
}

fn tagged(source: &str, destination: &str) -> TaggedPolicy {
    TaggedPolicy {
        policy: policy::Policy {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: policy::Protocol::Tcp,
            ports: "7000-7010".parse().unwrap(),
        },
        source_tag: Tag::new(1).unwrap(),
        destination_tag: Tag::new(2).unwrap(),
    }
}

fn listed(policies: &[TaggedPolicy]) -> String {
    gocompat::json::to_string(&v1::PolicyList::of_tagged(policies, TagLength::DEFAULT))
}

#[tokio::test]
async fn a_question_says_what_is_known_and_an_answer_what_to_say_next() {
    let server = Server::start().await;
    let policies = vec![tagged("a", "b")];
    server.will(Reply::ok(&listed(&policies)).etag("\"life.7\""));
    let answer = server.client().policies(&question(&["b", "a"], Some("life.5"), Some(55))).await;
    assert_eq!(answer.unwrap(), Answer::Policies { policies, version: Some(version("life.7")) });
    let asked = server.asked();
    assert_eq!(asked.uri, "/networking/v1/internal/policies?id=a%2Cb");
    assert_eq!(asked.header("if-none-match"), Some("\"life.5\""));
    assert_eq!(asked.header("prefer"), Some("wait=55"));
    assert_eq!(asked.header("netman-cell"), Some("cell-1"));
    assert_eq!((asked.header("netman-backend"), asked.header("netman-error")), (None, None));
}

#[tokio::test]
async fn a_receipt_says_what_enforces_and_what_is_wrong_with_it() {
    let server = Server::start().await;
    server.will(Reply::ok(&listed(&[])));
    let receipt = ReceiptWords {
        backend: Some(Backend::Iptables),
        error: Some("99%\nbad".into()),
        watches_only: false,
    };
    let question = Question { receipt, ..question(&["a"], Some("life.5"), None) };
    server.client().policies(&question).await.unwrap();
    let asked = server.asked();
    assert_eq!(asked.header("netman-backend"), Some("iptables"));
    assert_eq!(asked.header("netman-error"), Some("99%25%0Abad"));
}

/// Two programs of one configuration, or one that was started twice.
#[tokio::test]
async fn a_receipt_says_which_client_gives_it() {
    let server = Server::start().await;
    let (one, other) = (server.client(), server.client());
    let receipt = ReceiptWords::default();
    let question = Question { receipt, ..question(&["a"], Some("life.5"), None) };
    let (mut agents, mut numbers) = (Vec::new(), Vec::new());
    for client in [&one, &one.clone(), &other] {
        server.will(Reply::ok(&listed(&[])));
        client.policies(&question).await.unwrap();
        let asked = server.asked();
        agents.push(asked.header("netman-agent").unwrap().to_owned());
        numbers.push(asked.header("netman-question").unwrap().to_owned());
    }
    assert_eq!(numbers, ["0", "1", "0"]);
    assert_eq!(agents[0], agents[1]);
    assert_ne!(agents[0], agents[2]);
    let urls = vec![server.url.clone(), server.url.clone()];
    let (mut of_each, mut numbers) = (Vec::new(), Vec::new());
    for client in Client::each(&Settings { urls, ..server.settings() }).unwrap() {
        server.will(Reply::ok(&listed(&[])));
        client.policies(&question).await.unwrap();
        let asked = server.asked();
        of_each.push(asked.header("netman-agent").unwrap().to_owned());
        numbers.push(asked.header("netman-question").unwrap().to_owned());
    }
    assert_eq!(of_each[0], of_each[1], "it is one program that goes from one to the other");
    assert_eq!(numbers, ["0", "1"]);
}

#[tokio::test]
async fn what_a_server_made_of_the_wait_is_passed_on() {
    let server = Server::start().await;
    let said = [("wait=20", Some(20)), ("respond-async, Wait=\"7\"", Some(7)), ("wait", None)];
    for (said, wait) in said {
        let reply = Reply::status(304).etag("\"life.5\"");
        server.will(reply.header("Preference-Applied", said));
        let told = server.client().told(&question(&["a"], Some("life.5"), Some(55))).await;
        assert_eq!(told.unwrap().wait, wait.map(Duration::from_secs), "{said}");
    }
}

#[tokio::test]
async fn a_first_question_claims_nothing_and_an_old_server_names_no_version() {
    let server = Server::start().await;
    server.will(Reply::ok(&listed(&[])));
    let answer = server.client().policies(&question(&[], None, None)).await.unwrap();
    assert_eq!(answer, Answer::Policies { policies: vec![], version: None });
    let asked = server.asked();
    assert_eq!(asked.uri, "/networking/v1/internal/policies?id=");
    assert_eq!((asked.header("if-none-match"), asked.header("prefer")), (None, None));
}

#[tokio::test]
async fn not_modified_is_about_what_is_known_or_refused() {
    let server = Server::start().await;
    let client = server.client();
    server.will(Reply::status(304).etag("\"life.5\""));
    let answer = client.policies(&question(&["a"], Some("life.5"), Some(1))).await.unwrap();
    assert_eq!(answer, Answer::NotModified(version("life.5")));
    for (known, etag) in [(None, "\"life.5\""), (Some("life.5"), "\"life.6\"")] {
        server.will(Reply::status(304).etag(etag));
        let error = client.policies(&question(&["a"], known, None)).await.unwrap_err();
        assert!(matches!(error, ClientError::Nonsense { .. }), "{error}");
    }
}

#[tokio::test]
async fn answers_that_are_not_whole_are_refused() {
    let server = Server::start().await;
    let client = server.client();
    let half_bad = listed(&[tagged("a", "b"), tagged("b", "a")]).replacen("0002", "zz", 1);
    for body in ["", "{}", "null", "[]", "{\"policies\":null}", "{\"policies\":[", &half_bad] {
        server.will(Reply::ok(body).etag("\"life.7\""));
        let error = client.policies(&question(&["a"], None, None)).await.unwrap_err();
        assert!(
            matches!(error, ClientError::Json { .. } | ClientError::Nonsense { .. }),
            "{body}: {error}"
        );
    }
    server.will(Reply::ok(&listed(&[])).etag("W/\"0815\""));
    client.policies(&question(&["a"], None, None)).await.unwrap_err();
}

#[tokio::test]
async fn a_cell_with_more_apps_than_fit_keeps_what_it_wanted() {
    let server = Server::start().await;
    let names: BTreeSet<AppGuid> =
        (0..2000).map(|n| format!("app-{n:032}").parse().unwrap()).collect();
    let first = names.first().unwrap().as_str();
    let wanted = tagged(first, "elsewhere");
    server.will(Reply::ok(&listed(&[wanted.clone(), tagged("other", "elsewhere")])));
    let question = Question { apps: names.clone(), ..Question::default() };
    let answer = server.client().policies(&question).await.unwrap();
    assert_eq!(answer, Answer::Policies { policies: vec![wanted], version: None });
    assert_eq!(server.asked().uri, "/networking/v1/internal/policies");
}

#[tokio::test]
async fn a_refusal_carries_the_servers_words() {
    let server = Server::start().await;
    server.will(Reply::status(500).body("{\"error\": \"database read failed\"}"));
    let error = server.client().policies(&question(&["a"], None, None)).await.unwrap_err();
    let expected = format!(
        "GET {}/networking/v1/internal/policies was refused with status 500: database read failed",
        server.url
    );
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_after_the_wait_and_the_timeout() {
    let server = Server::start().await;
    let client = Client::new(&Settings { timeout: Duration::from_millis(50), ..server.settings() });
    let client = client.unwrap();
    let asked = std::time::Instant::now();
    let error = client.policies(&question(&["a"], Some("l.1"), Some(1))).await.unwrap_err();
    assert!(error.is_unreachable(), "{error}");
    assert!(asked.elapsed() >= Duration::from_millis(1050));
}

#[tokio::test]
async fn leases_are_listed_one_by_one() {
    let server = Server::start().await;
    let good = lease("10.255.30.0/24");
    let body = gocompat::json::to_string(&policy::wire::lease::LeaseBody::from(&good));
    let bad = body.replace("10.0.16.14", "10.0.16");
    server.will(Reply::ok(&format!("{{\"leases\":[{bad},{body}]}}")).etag("\"life.3\""));
    let known = version("life.2");
    let leases = server.client().leases(Some(&known), Some(Duration::from_secs(30))).await;
    let Leases::All { leases, unreadable, version } = leases.unwrap() else {
        panic!("the list was modified");
    };
    assert_eq!((leases, unreadable.len()), (vec![good], 1));
    assert_eq!(version.unwrap().to_string(), "life.3");
    let asked = server.asked();
    assert_eq!((asked.method.clone(), asked.uri.as_str()), (Method::GET, "/leases"));
    assert_eq!(asked.header("netman-cell"), None, "leases have no receipts");
}

#[tokio::test]
async fn a_lease_is_acquired_renewed_and_released() {
    let server = Server::start().await;
    let client = server.client();
    let lease = lease("10.255.30.0/24");
    let body = gocompat::json::to_string(&policy::wire::lease::LeaseBody::from(&lease));
    server.will(Reply::ok(&body));
    assert_eq!(client.acquire(lease.underlay_ip).await.unwrap(), lease);
    let asked = server.asked();
    assert_eq!((asked.method.clone(), asked.uri.as_str()), (Method::PUT, "/leases/acquire"));
    assert_eq!(asked.body, r#"{"underlay_ip":"10.0.16.14","single_overlay_ip":false}"#);

    server.will(Reply::ok("{}"));
    client.renew(&lease).await.unwrap();
    assert_eq!(server.asked().body, body);

    server.will(Reply::status(409).body("{\"error\":\"lease mismatch\"}"));
    let error = client.renew(&lease).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the renewal of lease 10.255.30.0/24 by 10.0.16.14 was refused: lease mismatch"
    );
    assert!(matches!(error, ClientError::RenewalRefused { .. }));
    server.asked();

    server.will(Reply::ok("{}"));
    client.release(lease.underlay_ip).await.unwrap();
    assert_eq!(server.asked().body, r#"{"underlay_ip":"10.0.16.14"}"#);
}

#[tokio::test]
async fn a_pool_without_free_blocks_is_a_refusal_not_a_lost_lease() {
    let server = Server::start().await;
    server.will(Reply::status(409).body("{\"error\":\"no lease available\"}"));
    let error = server.client().acquire("10.0.16.14".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, ClientError::Refused { status: 409, .. }), "{error}");
}

#[tokio::test]
async fn a_tag_is_asked_for() {
    let server = Server::start().await;
    server.will(Reply::ok(r#"{"id":"INGRESS","tag":"00A3","type":"router"}"#));
    let tag = server.client().tag("INGRESS", "router").await.unwrap();
    assert_eq!(Some(tag), Tag::new(0xa3));
    assert_eq!(server.asked().body, r#"{"id":"INGRESS","type":"router"}"#);
}

#[tokio::test]
async fn the_servers_date_is_told_whatever_it_answers() {
    let server = Server::start().await;
    let date = "Thu, 26 Nov 2026 02:49:10 GMT";
    server.will(Reply::status(403).header("Date", date));
    assert_eq!(server.client().date().await.unwrap().as_deref(), Some(date));
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_spoken_to() {
    let (server, stranger) = (Server::start().await, Server::start().await);
    let settings = Settings { urls: vec![stranger.url.clone()], ..server.settings() };
    let error = Client::new(&settings).unwrap().leases(None, None).await.unwrap_err();
    assert!(error.is_unreachable(), "{error}");
    let chain = service::log::chain(&error);
    assert!(chain.contains("certificate"), "the chain says why: {chain}");
}

#[tokio::test]
async fn what_to_do_about_a_connection_that_comes_to_nothing_is_known() {
    let (server, stranger) = (Server::start().await, Server::start().await);
    let step = async |change: &dyn Fn(&mut Settings), never_answered| {
        let mut settings = server.settings();
        change(&mut settings);
        let client = Client::new(&settings).unwrap();
        let error = client.leases(None, None).await.unwrap_err();
        error.next_step(never_answered).unwrap_or_else(|| panic!("{error:?}"))
    };
    let other = step(&|settings| settings.urls = vec![stranger.url.clone()], false).await;
    assert!(other.starts_with("ca_cert_file must be"), "{other}");
    let server_as_client = |settings: &mut Settings| {
        settings.client_cert_file = server.files.path().join("server.crt");
        settings.client_key_file = server.files.path().join("server.key");
    };
    let not_accepted = step(&server_as_client, true).await;
    assert!(not_accepted.starts_with("client_cert_file must be"), "{not_accepted}");
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", plain.local_addr().unwrap());
    tokio::spawn(axum::serve(plain, axum::Router::new()).into_future());
    let no_tls = step(&|settings| settings.urls = vec![url.clone()], true).await;
    assert!(no_tls.contains("port 4003 by custom"), "{no_tls}");
    let named = |s: &mut Settings| s.urls = vec![s.urls[0].replace("127.0.0.1", "127.0.0.2")];
    let nobody = step(&named, true).await;
    assert!(nobody.contains("running there"), "{nobody}");
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_by_name() {
    let server = Server::start().await;
    let refused = |change: &dyn Fn(&mut Settings)| {
        let mut settings = server.settings();
        change(&mut settings);
        Client::new(&settings).unwrap_err().to_string()
    };
    assert_eq!(
        refused(&|settings| settings.urls = vec!["http://10.0.0.1:4003".into()]),
        "policy server url \"http://10.0.0.1:4003\" cannot be used: expected https://host:port"
    );
    assert_eq!(
        refused(&|settings| settings.ca_cert_file = "/does/not/exist".into()),
        "reading certificate authorities from /does/not/exist"
    );
    let key = server.settings().client_key_file;
    assert_eq!(
        refused(&|settings| settings.ca_cert_file = key.clone()),
        format!(
            "{} holds no certificate; that of the authority behind the server's is meant",
            key.display()
        )
    );
    assert_eq!(
        refused(&|settings| settings.cell = Some("a\nb".into())),
        "cell name \"a\\nb\" cannot be sent: expected visible ASCII characters"
    );
    let certificate = server.settings().client_cert_file;
    refused(&|settings| settings.client_key_file = certificate.clone());
    let settings = format!("{:?}", server.settings());
    let client = format!("{:?}", server.client());
    for shown in [settings, client] {
        assert!(!shown.contains("PRIVATE KEY"), "{shown}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Through the same function the client uses, without a socket for each case.
    #[test]
    fn any_bytes_as_an_answer_are_understood_or_refused(
        noise: Vec<u8>, at in 0usize..400, with: u8,
    ) {
        let _ = policies::read(&noise);
        let mut nearly = listed(&[tagged("a", "b"), tagged("b", "a")]).into_bytes();
        let at = at % nearly.len();
        nearly[at] = with;
        if let Ok(policies) = policies::read(&nearly) {
            prop_assert_eq!(policies.len(), 2);
        }
        nearly.truncate(at);
        prop_assert!(policies::read(&nearly).is_err());
    }
}
