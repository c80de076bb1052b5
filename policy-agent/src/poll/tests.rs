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
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::*;
use crate::{keeper, saved::Saved, status::Enforced};

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

    async fn next_question(&mut self) -> HeaderMap {
        timeout(DEADLINE, self.asked.recv()).await.expect("a question in time").unwrap()
    }

    /// The `If-None-Match` of the next question.
    async fn next_receipt(&mut self) -> Option<String> {
        text(&self.next_question().await, "if-none-match")
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| value.to_str().unwrap().to_owned())
}

async fn answer(
    State((script, tell)): State<(Script, mpsc::UnboundedSender<HeaderMap>)>,
    headers: HeaderMap,
) -> (StatusCode, HeaderMap, &'static str) {
    let known = headers.get("if-none-match").cloned();
    tell.send(headers).unwrap();
    let next = script.lock().unwrap().pop_front();
    let Some((status, etag, body)) = next else { return std::future::pending().await };
    let etag = etag.map(|etag| (axum::http::header::ETAG, etag.parse().unwrap()));
    let mut headers: HeaderMap = etag.into_iter().collect();
    if status == StatusCode::IM_USED {
        headers.insert("im", "netman-changes".parse().unwrap());
        headers.insert("delta-base", known.expect("changes are to something"));
    }
    (status, headers, body)
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
    _agent: Vec<AbortOnDrop>,
}

/// A task that is killed with the scene.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Scene {
    async fn play(
        script: impl IntoIterator<Item = (StatusCode, Option<&'static str>, &'static str)>,
    ) -> Self {
        let first = Status { pass: 1, held: None, apps: apps(&["web"]), ..Status::unknown() };
        Self::resume(script, Saved::at(None), first).await
    }

    /// With what `saved` holds, after a pass that came to `first`.
    async fn resume(
        script: impl IntoIterator<Item = (StatusCode, Option<&'static str>, &'static str)>,
        saved: Saved,
        first: Status,
    ) -> Self {
        let server = Server::start(Arc::new(Mutex::new(script.into_iter().collect()))).await;
        Self::before(server, saved, first)
    }

    /// An agent that shows this certificate, or says so.
    async fn showing(
        certificate: &Path,
        script: impl IntoIterator<Item = (StatusCode, Option<&'static str>, &'static str)>,
    ) -> Self {
        let first = Status { pass: 1, held: None, apps: apps(&["web"]), ..Status::unknown() };
        let server = Server::start(Arc::new(Mutex::new(script.into_iter().collect()))).await;
        Self::with(server, Saved::at(None), first, |poller| poller.showing(certificate))
    }

    fn before(server: Server, saved: Saved, first: Status) -> Self {
        Self::with(server, saved, first, |poller| poller)
    }

    fn with(
        server: Server,
        mut saved: Saved,
        first: Status,
        made: impl FnOnce(Poller) -> Poller,
    ) -> Self {
        let clients = Client::each(&server.settings).unwrap();
        let (statuses, watching) = watch::channel(first);
        let (wake, wakes) = mpsc::channel(8);
        let kept = saved.load();
        let settings = follow::Settings {
            cell: "cell-1".into(),
            hold: follow::HOLD,
            poll_interval: Duration::from_millis(20),
        };
        let mut follower = Follower::new(clients, settings);
        if let Some(kept) = kept.clone() {
            follower.resume(kept.given());
        }
        let (keeper, latest) = Keeper::after(kept.clone());
        let (poller, reach) = Poller::new(follower, kept, keeper, wake, watching);
        let poller = made(poller);
        let agent = vec![
            AbortOnDrop(tokio::spawn(poller.run(CancellationToken::new()))),
            AbortOnDrop(tokio::spawn(keeper::run(saved, latest))),
        ];
        Self { server, wakes, statuses, reach, _agent: agent }
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

#[tokio::test]
async fn a_server_that_answers_again_is_known_to_before_a_question_is_held() {
    let script = [
        (StatusCode::OK, Some("\"life.7\""), EMPTY),
        (StatusCode::INTERNAL_SERVER_ERROR, None, "{}"),
        (StatusCode::NOT_MODIFIED, Some("\"life.7\""), ""),
    ];
    let mut scene = Scene::play(script).await;
    scene.server.next_question().await;
    let answer = scene.next_answer().await;
    scene.enforce(&answer);
    let held = Some("wait=55");
    assert_eq!(text(&scene.server.next_question().await, "prefer").as_deref(), held);
    assert_eq!(text(&scene.server.next_question().await, "prefer"), None);
    let again = scene.server.next_question().await;
    assert_eq!(text(&again, "prefer").as_deref(), held);
    assert_eq!(text(&again, "if-none-match").as_deref(), Some("\"life.7\""));
    assert_eq!(scene.reach.borrow().failure, None);
}

#[tokio::test]
async fn a_receipt_for_more_apps_is_one_for_these() {
    let both = apps(&["web", "db"]);
    let first = Status { pass: 1, held: None, apps: both, ..Status::unknown() };
    let script = [(StatusCode::OK, Some("\"life.7\""), EMPTY)];
    let mut scene = Scene::resume(script, Saved::at(None), first).await;
    let answer = scene.next_answer().await;
    scene.enforce(&answer);
    while scene.server.next_receipt().await.as_deref() != Some("\"life.7\"") {}
    scene.statuses.send_modify(|status| status.apps = apps(&["db"]));
    assert_eq!(scene.server.next_receipt().await.as_deref(), Some("\"life.7\""));
}

#[tokio::test]
async fn the_kernels_trouble_is_told_while_a_question_is_held() {
    let mut scene = Scene::play([]).await;
    let question = scene.server.next_question().await;
    assert_eq!(text(&question, "netman-backend").as_deref(), Some("iptables"));
    assert_eq!(text(&question, "netman-error"), None);
    scene.statuses.send_modify(|status| status.held = Some("no iptables".into()));
    let question = scene.server.next_question().await;
    assert_eq!(text(&question, "netman-error").as_deref(), Some("no iptables"));
    scene.statuses.send_modify(|status| status.held = None);
    assert_eq!(text(&scene.server.next_question().await, "netman-error"), None);
}

#[tokio::test]
async fn what_is_only_watched_is_no_receipt() {
    let mut scene = Scene::play([]).await;
    assert_eq!(text(&scene.server.next_question().await, "netman-watches-only"), None);
    scene.statuses.send_modify(|status| status.shadow.default_deny = true);
    let question = scene.server.next_question().await;
    assert_eq!(text(&question, "netman-watches-only").as_deref(), Some("true"));
    let told = "shadow mode: what no policy allows is let through";
    assert_eq!(text(&question, "netman-error").as_deref(), Some(told));
}

#[tokio::test]
async fn while_containers_are_not_known_nothing_is_confirmed() {
    let mut scene = Scene::play([]).await;
    assert_eq!(text(&scene.server.next_question().await, "netman-watches-only"), None);
    let failure = Some("decoding container store /s.json".to_owned());
    scene.statuses.send_modify(|status| status.containers_failure = failure);
    let question = scene.server.next_question().await;
    assert_eq!(text(&question, "netman-watches-only").as_deref(), Some("true"));
    let told = "it is not known which containers are here: decoding container store /s.json";
    assert_eq!(text(&question, "netman-error").as_deref(), Some(told));
    scene.statuses.send_modify(|status| status.containers_failure = None);
    let question = scene.server.next_question().await;
    assert_eq!(text(&question, "netman-watches-only"), None);
    assert_eq!(text(&question, "netman-error"), None);
}

#[tokio::test]
async fn what_holds_a_pass_is_no_fault_of_the_servers() {
    let script = [(StatusCode::OK, Some("\"life.7\""), EMPTY)];
    let mut scene = Scene::play(script).await;
    assert_eq!(scene.server.next_receipt().await, None);
    scene.next_answer().await;
    for _ in 0..2 {
        scene.statuses.send_modify(|status| {
            status.pass += 1;
            status.held = Some("no subnet file".into());
        });
    }
    let question = scene.server.next_question().await;
    assert_eq!(text(&question, "netman-error").as_deref(), Some("no subnet file"));
    assert_eq!(text(&question, "if-none-match"), None);
    assert_eq!(scene.reach.borrow().failure, None);
}

#[tokio::test]
async fn who_cannot_reach_the_server_looks_at_its_own_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("expired.pem");
    let mut params = CertificateParams::new(["cell".to_owned()]).unwrap();
    params.not_after = time::OffsetDateTime::now_utc() - time::Duration::days(1);
    let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    std::fs::write(&path, certificate.pem()).unwrap();
    let script = [(StatusCode::INTERNAL_SERVER_ERROR, None, "{}")];
    let mut scene = Scene::showing(&path, script).await;
    let failed = scene.reach.wait_for(|reach| reach.failure.is_some());
    let reach = timeout(DEADLINE, failed).await.expect("a failure in time").unwrap().clone();
    let told = format!("our certificate {} has expired on ", path.display());
    assert!(reach.failure.as_ref().unwrap().contains(&told), "{reach:?}");
}

const ONE: &str = r#"{"total_policies":1,"policies":[{"source":{"id":"web","tag":"0001"},"destination":
    {"id":"db","tag":"0002","protocol":"tcp","ports":{"start":80,"end":80}}}]}"#;
const ANOTHER: &str = r#"{"total_policies":2,"removed":[],"added":[{"source":{"id":"log","tag":"0003"},
    "destination":{"id":"web","tag":"0001","protocol":"udp","ports":{"start":53,"end":53}}}]}"#;

#[tokio::test]
async fn an_agent_killed_and_started_again_resumes_with_what_it_had_enforced() {
    let folder = tempfile::tempdir().unwrap();
    let mut saved = Saved::at(Some(folder.path().join("answer.json")));
    let first = Status { pass: 1, held: None, apps: apps(&["web"]), ..Status::unknown() };
    let script = [(StatusCode::OK, Some("\"life.7\""), ONE)];
    let mut scene = Scene::resume(script, saved.clone(), first.clone()).await;
    let answer = scene.next_answer().await;
    assert_eq!(saved.load(), None, "nothing is kept before it is enforced");
    scene.enforce(&answer);
    let kept = async {
        while saved.load().is_none() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, kept).await.expect("it is kept in time");
    drop(scene);

    let answer = saved.load().unwrap();
    let enforced = Enforced { apps: answer.apps.clone(), version: answer.version.clone() };
    let first = Status { enforced: Some(enforced), ..first };
    let script = [(StatusCode::IM_USED, Some("\"life.8\""), ANOTHER)];
    let mut scene = Scene::resume(script, saved, first).await;
    let question = scene.server.next_question().await;
    assert_eq!(text(&question, "if-none-match").as_deref(), Some("\"life.7\""));
    assert_eq!(text(&question, "a-im").as_deref(), Some("netman-changes"));
    let answer = scene.next_answer().await;
    assert_eq!(answer.allowances.len(), 2, "what was kept and what is new");
    assert_eq!(answer.version.unwrap().to_string(), "life.8");
}

#[tokio::test]
async fn nothing_has_failed_while_another_server_answers() {
    let first = Status { pass: 1, held: None, apps: apps(&["web"]), ..Status::unknown() };
    // Whichever of the two is this cell's own.
    for away in 0..2 {
        let script = [(StatusCode::OK, Some("\"life.7\""), EMPTY)];
        let mut server = Server::start(Arc::new(Mutex::new(script.into()))).await;
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        server.settings.urls.insert(away, format!("https://{nobody}"));
        let mut scene = Scene::before(server, Saved::at(None), first.clone());
        scene.next_answer().await;
        assert_eq!(scene.reach.borrow().failure, None);
    }
}

#[tokio::test]
async fn an_answer_about_nobody_is_not_taken_before_it_is_known_who_is_here() {
    let first = Status { pass: 1, held: Some("no store".into()), ..Status::unknown() };
    let answer = |etag| (StatusCode::OK, Some(etag), EMPTY);
    let script = [answer("\"life.7\""), answer("\"life.8\""), answer("\"life.9\"")];
    let mut scene = Scene::resume(script, Saved::at(None), first).await;
    for _ in 0..2 {
        let question = scene.server.next_question().await;
        assert_eq!(text(&question, "netman-error").as_deref(), Some("no store"));
    }
    assert!(scene.wakes.try_recv().is_err(), "it was handed on");
    scene.statuses.send_modify(|status| {
        (status.has_looked, status.held) = (true, None);
        status.apps = apps(&["web"]);
    });
    assert_eq!(scene.next_answer().await.apps, apps(&["web"]));
}

#[tokio::test]
async fn until_it_is_known_who_is_here_the_server_is_asked_about_who_was() {
    let first = Status {
        pass: 1,
        held: Some("no store".into()),
        apps: apps(&["web"]),
        ..Status::unknown()
    };
    let answer = (StatusCode::OK, Some("\"life.7\""), EMPTY);
    let mut scene = Scene::resume([answer], Saved::at(None), first).await;
    let question = scene.server.next_question().await;
    assert_eq!(text(&question, "netman-error").as_deref(), Some("no store"));
    assert_eq!(scene.next_answer().await.apps, apps(&["web"]));
}
