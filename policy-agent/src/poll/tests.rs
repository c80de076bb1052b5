use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::get,
};
use policy_client::internal::{Client, Settings, follow};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::{net::TcpListener, time::timeout};

use super::*;
use crate::status::Enforced;

const DEADLINE: Duration = Duration::from_secs(10);

/// What the server is to say, one answer a question; after the last it holds its tongue.
type Script = Arc<Mutex<VecDeque<(StatusCode, Option<&'static str>, &'static str)>>>;

/// A policy server that follows a script and shows what it was asked.
struct Server {
    asked: mpsc::UnboundedReceiver<HeaderMap>,
    settings: Settings,
    _files: tempfile::TempDir,
}

impl Server {
    async fn start(script: Script) -> Self {
        service::install_crypto_provider();
        let files = tempfile::tempdir().unwrap();
        certificates(files.path());
        let path = |name: &str| files.path().join(name);
        let tls =
            service::tls::mutual_server(&path("ca.crt"), &path("us.crt"), &path("us.key")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = Settings {
            urls: vec![format!("https://{}", listener.local_addr().unwrap())],
            ca_cert_file: path("ca.crt"),
            client_cert_file: path("us.crt"),
            client_key_file: path("us.key"),
            timeout: Duration::from_secs(5),
            cell: Some("cell-1".into()),
        };
        let (tell, asked) = mpsc::unbounded_channel();
        let routes = Router::new()
            .route("/networking/v1/internal/policies", get(answer))
            .with_state((script, tell));
        tokio::spawn(service::serve::https(listener, tls, routes, CancellationToken::new()));
        Self { asked, settings, _files: files }
    }

    /// The `If-None-Match` of the next question.
    async fn next_receipt(&mut self) -> Option<String> {
        let headers = timeout(DEADLINE, self.asked.recv()).await.expect("a question in time");
        let receipt = headers.unwrap().get("if-none-match").cloned();
        receipt.map(|value| value.to_str().unwrap().to_owned())
    }
}

async fn answer(
    State((script, tell)): State<(Script, mpsc::UnboundedSender<HeaderMap>)>,
    headers: HeaderMap,
) -> (StatusCode, HeaderMap, &'static str) {
    tell.send(headers).unwrap();
    let next = script.lock().unwrap().pop_front();
    let Some((status, etag, body)) = next else { return std::future::pending().await };
    let etag = etag.map(|etag| (axum::http::header::ETAG, etag.parse().unwrap()));
    (status, etag.into_iter().collect(), body)
}

/// An authority, and one certificate of it that serves both sides.
fn certificates(folder: &Path) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    std::fs::write(folder.join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(folder.join("us.crt"), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    std::fs::write(folder.join("us.key"), key.serialize_pem()).unwrap();
}

/// A poller between a server and a cycle that the test plays.
struct Scene {
    server: Server,
    wakes: mpsc::Receiver<Wake>,
    statuses: watch::Sender<Status>,
    reach: watch::Receiver<Reach>,
}

impl Scene {
    async fn play(
        script: impl IntoIterator<Item = (StatusCode, Option<&'static str>, &'static str)>,
    ) -> Self {
        let server = Server::start(Arc::new(Mutex::new(script.into_iter().collect()))).await;
        let client = Client::new(&server.settings).unwrap();
        let first = Status { pass: 1, held: None, apps: apps(&["web"]), ..Status::unknown() };
        let (statuses, watching) = watch::channel(first);
        let (wake, wakes) = mpsc::channel(8);
        let (reach, reaching) = watch::channel(Reach { apps: apps(&[]), failure: None });
        let follower = Follower::new(
            vec![client],
            follow::Settings {
                cell: "cell-1".into(),
                hold: follow::HOLD,
                poll_interval: Duration::from_millis(20),
            },
        );
        let keeper = Keeper::after(None).0;
        let poller = Poller { follower, keeper, wake, statuses: watching, reach };
        tokio::spawn(poller.run(CancellationToken::new()));
        Self { server, wakes, statuses, reach: reaching }
    }

    async fn next_answer(&mut self) -> Answer {
        match timeout(DEADLINE, self.wakes.recv()).await.expect("an answer in time") {
            Some(Wake::Answer(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    /// The cycle has done what the answer says.
    fn enforce(&self, answer: &Answer) {
        let enforced = Enforced { apps: answer.apps.clone(), version: answer.version.clone() };
        self.statuses.send_modify(|status| {
            status.pass += 1;
            status.enforced = Some(enforced);
        });
    }
}

fn apps(names: &[&str]) -> BTreeSet<AppGuid> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

const EMPTY: &str = r#"{"total_policies":0,"policies":[]}"#;

#[tokio::test]
async fn a_receipt_is_given_only_for_what_the_kernel_enforces() {
    let mut scene = Scene::play([(StatusCode::OK, Some("\"life.7\""), EMPTY)]).await;
    assert_eq!(scene.server.next_receipt().await, None);
    let answer = scene.next_answer().await;
    assert!(scene.server.asked.is_empty(), "asked again before the kernel was changed");
    scene.enforce(&answer);
    assert_eq!(scene.server.next_receipt().await.as_deref(), Some("\"life.7\""));
}

#[tokio::test]
async fn another_container_changes_the_question_that_is_held() {
    let mut scene = Scene::play([]).await;
    assert_eq!(scene.server.next_receipt().await, None);
    scene.statuses.send_modify(|status| status.apps = apps(&["web", "db"]));
    assert_eq!(scene.server.next_receipt().await, None);
}

#[tokio::test]
async fn a_server_without_versions_is_asked_again_and_again() {
    let mut scene =
        Scene::play([(StatusCode::OK, None, EMPTY), (StatusCode::OK, None, EMPTY)]).await;
    for _ in 0..2 {
        assert_eq!(scene.server.next_receipt().await, None);
        let answer = scene.next_answer().await;
        scene.enforce(&answer);
    }
    assert_eq!(scene.server.next_receipt().await, None);
}

#[tokio::test]
async fn an_unreadable_answer_is_refused_whole_and_asked_for_again() {
    let bad = r#"{"policies":[{"source":{"id":"a","tag":"01"},"destination":{"id":"b","tag":"02",
        "protocol":"sctp","ports":{"start":1,"end":1}}}]}"#;
    let script = [
        (StatusCode::OK, Some("\"life.7\""), bad),
        (StatusCode::INTERNAL_SERVER_ERROR, None, "{}"),
        (StatusCode::OK, Some("\"life.8\""), EMPTY),
    ];
    let mut scene = Scene::play(script).await;
    let failed = scene.reach.wait_for(|reach| reach.failure.is_some());
    timeout(DEADLINE, failed).await.expect("a failure in time").unwrap();
    let answer = scene.next_answer().await;
    assert_eq!(answer.version.unwrap().to_string(), "life.8");
}
