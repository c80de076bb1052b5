//! The local listener: the networker forces a cycle before an app starts (spec/cell.md §D.8), and
//! operators ask how things stand.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::Response,
    routing::{any, get, post},
};
use policy::AppGuid;
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    time::{sleep, timeout},
};

use crate::{
    cycle::{Question, Wake},
    denied::{Reason, Verdict},
    explain::{Explanation, Flow},
    groups, metrics,
    networker::Repairs,
    poll::{Reach, Taken},
    probe::Attempt,
    shadow::{Kind, Promoted},
    status::Status,
};

#[derive(Clone)]
struct Admin {
    wake: mpsc::Sender<Wake>,
    statuses: watch::Receiver<Status>,
    reach: watch::Receiver<Reach>,
    /// Of security groups, if we keep them.
    groups: Option<watch::Receiver<groups::Status>>,
    pages: metrics::Sources,
    patience: Duration,
}

/// How things stand: with policies, with who tells them, and with security groups, if we keep them.
type Standings =
    (watch::Receiver<Status>, watch::Receiver<Reach>, Option<watch::Receiver<groups::Status>>);

/// How long somebody who forces something is made to wait for it: whatever a full cell costs while many
/// containers start at once, and less than the networker waits for us (30 s).
pub(crate) const PATIENCE: Duration = Duration::from_secs(25);

/// How long an address may still be taken by an agent that was killed.
const TAKEN: Duration = Duration::from_secs(5);

/// Whom that concerns leaves sooner; anybody else stays.
const SOON: Duration = Duration::from_millis(200);

/// Listens on `address`, which `key` of the configuration says. An agent killed while it was starting
/// `iptables` leaves behind a child that has our socket until it has become that program, a moment after
/// the kill.
pub(crate) async fn listen(address: SocketAddr, key: &str) -> io::Result<TcpListener> {
    let began = Instant::now();
    let mut is_told = false;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && began.elapsed() < TAKEN => {
                if !is_told && began.elapsed() >= SOON {
                    let hint = hint(&error, address);
                    tracing::warn!(
                        %address,
                        key,
                        "The address to listen on is taken{hint}; waiting {} seconds for it.",
                        TAKEN.as_secs()
                    );
                    is_told = true;
                }
                sleep(Duration::from_millis(20)).await;
            }
            result => return result,
        }
    }
}

/// How to find out who is in the way, if somebody is.
pub(crate) fn hint(error: &io::Error, address: SocketAddr) -> String {
    if error.kind() != io::ErrorKind::AddrInUse {
        return String::new();
    }
    format!(" (`ss -ltnp 'sport = :{}'` says by whom)", address.port())
}

/// The listener's URL table.
pub(crate) fn routes(
    wake: mpsc::Sender<Wake>,
    (statuses, reach, groups): Standings,
    pages: metrics::Sources,
) -> Router {
    Router::new()
        .route("/", get(contents))
        .route("/force-policy-poll-cycle", any(force))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/rules", get(rules))
        .route("/explain", get(explain))
        .route("/denied", get(denied))
        .route("/promote", post(promote))
        .with_state(Admin { wake, statuses, reach, groups, pages, patience: PATIENCE })
}

/// Beside `routes`, a word for who asks for what is not there, or by another method.
pub(crate) fn or_a_word(routes: Router) -> Router {
    let nothing = || async { (StatusCode::NOT_FOUND, "there is no such page; GET / lists them\n") };
    let otherwise = || async {
        (StatusCode::METHOD_NOT_ALLOWED, "this page takes another method; GET / lists them\n")
    };
    routes.fallback(nothing).method_not_allowed_fallback(otherwise)
}

/// For who comes by and wants to know what there is; each is told of in README.md.
const CONTENTS: &str = "\
policy-agent

GET  /status                     how things stand with policies: what is enforced, what keeps from it
GET  /status/security-groups     the same of security groups
GET  /rules                      the rules that are wanted
GET  /explain?source=web&destination=db&port=8080
                                 what becomes of a packet, and why; `policy-agent explain` asks this
GET  /denied?protocol=tcp&source=IP:PORT&destination=IP:PORT
                                 why a rule of ours denied such a packet
GET  /metrics                    for Prometheus
GET  /force-policy-poll-cycle    has the kernel enforce the policies of all containers in the store, now
GET  /force-asgs-for-container?container=HANDLE
                                 the same of a container's security groups
GET  /force-orphaned-asgs-cleanup?container=HANDLE
                                 removes what is left of the groups of a container that is gone
POST /promote?what=removals      enforces what is only watched (shadow mode); all of it if nothing is named
";

async fn contents() -> &'static str {
    CONTENTS
}

#[derive(Serialize)]
struct StatusBody {
    enforcement: Status,
    /// How the networker's repairs went, if it is started for them.
    networker_repair: Option<Repairs>,
    /// Why the policy server gives no usable answer, if it does not.
    server_failure: Option<String>,
    /// Why the server takes what is enforced here for no receipt.
    receipt_refused: Option<String>,
    /// Why what is enforced is not on disk, or will hardly be, if so: a restart may undo it.
    state_file_failure: Option<String>,
    /// The last answer that said something new.
    last_answer: Option<LastAnswer>,
    /// Packets the rules told of as denied, at least.
    packets_denied: u64,
    /// And as such that would be, if they were not only watched.
    packets_would_deny: u64,
}

#[derive(Serialize)]
struct LastAnswer {
    version: Option<String>,
    /// From its arrival until the kernel held what it asks for.
    enforced_after_us: u64,
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let status = admin.statuses.borrow().clone();
    let server_answers = admin.reach.borrow().failure.is_none();
    let groups = admin.groups.as_ref().map(|groups| groups.borrow().clone());
    metrics::page(&status, groups.as_ref(), server_answers, &admin.pages)
}

async fn status(State(admin): State<Admin>) -> Json<StatusBody> {
    let enforcement = admin.statuses.borrow().clone();
    let Reach { failure: server_failure, receipt_refused, taken, apps: _ } =
        admin.reach.borrow().clone();
    let last_answer = taken.map(|Taken { version, after }| LastAnswer {
        version: version.as_ref().map(ToString::to_string),
        enforced_after_us: u64::try_from(after.as_micros()).unwrap_or(u64::MAX),
    });
    let packets = |verdict| admin.pages.told.ledger().packets(verdict);
    Json(StatusBody {
        enforcement,
        networker_repair: admin.pages.networker.get(),
        server_failure,
        receipt_refused,
        state_file_failure: admin.pages.disk.borrow().clone(),
        last_answer,
        packets_denied: packets(Verdict::Denied),
        packets_would_deny: packets(Verdict::WouldDeny),
    })
}

/// The rules that are wanted, sets and maps included.
async fn rules(State(admin): State<Admin>) -> Result<String, (StatusCode, String)> {
    let (tell, told) = oneshot::channel();
    admin.ask(Question::Rules(tell), told).await
}

/// The packet `/explain` is asked about.
#[derive(Deserialize)]
struct Asked {
    source: String,
    destination: String,
    /// `8080`, or `53/udp`.
    port: String,
}

async fn explain(
    State(admin): State<Admin>,
    Query(asked): Query<Asked>,
) -> Result<Json<Explanation>, (StatusCode, String)> {
    let Asked { source, destination, port } = asked;
    let flow = Flow::parse(&source, &destination, &port)
        .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    let (tell, told) = oneshot::channel();
    admin.ask(Question::Explain(flow, tell), told).await.map(Json)
}

/// Why our rules denied what somebody has just tried, as far as they told of it; `null` if they did not.
async fn denied(
    State(admin): State<Admin>,
    Query(attempt): Query<Attempt>,
) -> Json<Option<&'static str>> {
    let reason = admin.pages.told.ledger().denied(&attempt.header());
    Json(reason.map(Reason::as_str))
}

/// What is to be enforced from now on; all of it, if nothing is named.
#[derive(Deserialize)]
struct Promotion {
    what: Option<String>,
}

/// Enforces what was only watched, and answers once the kernel does.
async fn promote(
    State(mut admin): State<Admin>,
    Query(Promotion { what }): Query<Promotion>,
) -> Result<Json<Promoted>, (StatusCode, String)> {
    let kinds = match what.as_deref() {
        None => Kind::ALL.into(),
        Some(what) => {
            let kind = what.parse::<Kind>();
            [kind.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?].into()
        }
    };
    let (tell, told) = oneshot::channel();
    let promoted = admin.ask(Question::Promote(kinds, tell), told).await?;
    let unavailable = |why| (StatusCode::SERVICE_UNAVAILABLE, why);
    if let Err(Shut::Failed(why) | Shut::Pending(why)) = admin.pass().await {
        return Err(unavailable(why));
    }
    let held = admin.statuses.borrow().held.clone();
    let held = if promoted.now.security_groups { held.or(admin.groups_held().await) } else { held };
    match held {
        None => Ok(Json(promoted)),
        Some(why) => Err(unavailable(format!("promoted, but not enforced yet: {why}"))),
    }
}

/// Answers 200 once the kernel enforces the policies of every container in the store. While the server
/// is away that cannot be for apps nobody asked about before; their containers are shut, get their
/// policies when it is back, and may start meanwhile (spec/cell.md §I.5): also 200, with a word.
async fn force(State(mut admin): State<Admin>) -> (StatusCode, String) {
    let patience = admin.patience;
    match timeout(patience, admin.enforced()).await {
        Ok(Ok(())) => (StatusCode::OK, String::new()),
        Ok(Err(Shut::Pending(why))) => (StatusCode::OK, why),
        Ok(Err(Shut::Failed(why))) => failed(&why),
        Err(_) => failed(&format!("not done after {} seconds", patience.as_secs())),
    }
}

fn failed(why: &str) -> (StatusCode, String) {
    tracing::warn!(error = why, "A forced cycle failed.");
    let text = format!("failed to force policy poll cycle: {why}");
    (StatusCode::INTERNAL_SERVER_ERROR, text)
}

/// Why policies are not in force.
enum Shut {
    /// The containers are shut until the server answers.
    Pending(String),
    /// The kernel could not be changed.
    Failed(String),
}

impl Admin {
    /// Has whoever knows the kernel answer; what keeps it from that is 503.
    async fn ask<T>(
        &self,
        question: Question,
        told: oneshot::Receiver<Result<T, String>>,
    ) -> Result<T, (StatusCode, String)> {
        let unavailable = |why: String| (StatusCode::SERVICE_UNAVAILABLE, why);
        let stopping = || unavailable("the agent is stopping".into());
        self.wake.send(Wake::Asked(question)).await.map_err(|_| stopping())?;
        told.await.map_err(|_| stopping())?.map_err(unavailable)
    }

    /// Waits until security groups are enforced, and says what keeps them from it.
    async fn groups_held(&mut self) -> Option<String> {
        let groups = self.groups.as_mut()?;
        let passed = |status: &groups::Status| status.held.is_some() || !status.watches;
        match timeout(self.patience, groups.wait_for(passed)).await {
            Ok(Ok(status)) => status.held.clone(),
            Ok(Err(_)) => Some("the agent is stopping".to_owned()),
            Err(_) => Some(format!("not done after {} seconds", self.patience.as_secs())),
        }
    }

    async fn enforced(&mut self) -> Result<(), Shut> {
        let apps = self.pass().await?;
        if let Some(held) = &self.statuses.borrow().held {
            return Err(Shut::Failed(held.clone()));
        }
        if let Some(why) = &self.statuses.borrow().containers_failure {
            return Err(Shut::Failed(format!("the containers are not known: {why}")));
        }
        let mut reach = self.reach.clone();
        let covered = self.statuses.wait_for(|status| status.covers(&apps));
        let refused =
            reach.wait_for(|reach| reach.failure.is_some() && reach.apps.is_superset(&apps));
        tokio::select! {
            biased;
            status = covered => status.map(drop).map_err(|_| stopping()),
            reach = refused => {
                let reach = reach.map_err(|_| stopping())?;
                let why = reach.failure.clone().unwrap_or_default();
                Err(Shut::Pending(format!("shut until the policy server answers: {why}")))
            }
        }
    }

    /// One pass from now on; the apps it found.
    async fn pass(&self) -> Result<BTreeSet<AppGuid>, Shut> {
        let (waiter, passed) = oneshot::channel();
        self.wake.send(Wake::Forced(waiter)).await.map_err(|_| stopping())?;
        passed.await.map_err(|_| stopping())
    }
}

fn stopping() -> Shut {
    Shut::Failed("the agent is stopping".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Enforced;

    /// Of those whose path stands in a call; a constant's is not seen here.
    #[test]
    fn pages_are_listed_for_who_comes_by() {
        let paths = include_str!("admin.rs").split(".route(\"").skip(1);
        let paths = paths.filter_map(|rest| rest.split('"').next());
        let paths: Vec<_> = paths.filter(|path| path.starts_with('/') && *path != "/").collect();
        assert!(paths.len() > 6, "{paths:?}");
        for path in paths {
            assert!(CONTENTS.contains(&format!(" {path}")), "{path}");
        }
    }

    #[tokio::test]
    async fn an_address_that_is_freed_a_moment_later_is_waited_for() {
        let taken = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = taken.local_addr().unwrap();
        let waiting = tokio::spawn(listen(address, "a_port"));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(taken);
        assert_eq!(waiting.await.unwrap().unwrap().local_addr().unwrap(), address);
    }

    /// An agent whose cycle always finds `apps`, with the status and reach a test sets.
    struct Fake {
        admin: Admin,
        statuses: watch::Sender<Status>,
        reach: watch::Sender<Reach>,
    }

    fn apps(names: &[&str]) -> BTreeSet<AppGuid> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn healthy(enforced: &[&str]) -> Status {
        let enforced = Some(Enforced { apps: apps(enforced), version: None });
        Status { held: None, enforced, ..Status::unknown() }
    }

    fn fake(found: &'static [&'static str]) -> Fake {
        let (wake, mut wakes) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(Wake::Forced(waiter)) = wakes.recv().await {
                waiter.send(apps(found)).unwrap();
            }
        });
        let (statuses, watching) = watch::channel(healthy(&[]));
        let (reach, reaching) = watch::channel(Reach::default());
        let patience = Duration::from_millis(50);
        let one = std::num::NonZeroU32::MIN;
        let told = crate::denied::Told::new(one, one);
        let vtep = "silk-vtep".parse().unwrap();
        let (_, disk) = watch::channel(None);
        let pages = metrics::Sources { told, vtep, networker: Default::default(), disk };
        Fake {
            admin: Admin {
                wake,
                statuses: watching,
                reach: reaching,
                groups: None,
                pages,
                patience,
            },
            statuses,
            reach,
        }
    }

    async fn forced(fake: &Fake) -> (u16, String) {
        let (status, text) = force(State(fake.admin.clone())).await;
        (status.as_u16(), text)
    }

    #[tokio::test]
    async fn a_forced_cycle_is_done_when_every_app_is_enforced() {
        let fake = fake(&["web"]);
        fake.statuses.send_replace(healthy(&["web", "db"]));
        assert_eq!(forced(&fake).await, (200, String::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_cell_may_take_its_time_and_the_networker_hears_in_its_own() {
        const NETWORKER: Duration = Duration::from_secs(30);
        let mut fake = fake(&["web"]);
        fake.admin.patience = PATIENCE;
        let statuses = fake.statuses.clone();
        tokio::spawn(async move {
            sleep(Duration::from_secs(20)).await;
            statuses.send_replace(healthy(&["web"]));
        });
        assert_eq!(timeout(NETWORKER, forced(&fake)).await.unwrap().0, 200);
        fake.statuses.send_replace(healthy(&[]));
        let (status, text) = timeout(NETWORKER, forced(&fake)).await.unwrap();
        assert_eq!(status, 500);
        assert!(text.ends_with("not done after 25 seconds"), "{text}");
    }

    #[tokio::test]
    async fn every_page_that_is_listed_is_there_and_who_asks_for_others_gets_a_word() {
        let fake = fake(&[]);
        let Admin { wake, statuses, reach, groups, pages, .. } = fake.admin.clone();
        let routes = routes(wake, (statuses, reach, groups), pages);
        let routes = or_a_word(routes.merge(groups::disabled()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, routes).into_future());
        let asked = move |method: &str, path: &str| {
            let agent: ureq::Agent =
                ureq::Agent::config_builder().http_status_as_error(false).build().into();
            let request = axum::http::Request::builder().method(method);
            let request = request.uri(format!("http://{address}{path}")).body(()).unwrap();
            let mut answer = agent.run(request).unwrap();
            (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
        };
        tokio::task::spawn_blocking(move || {
            let nothing = "there is no such page; GET / lists them\n";
            let mut listed = 0;
            for line in CONTENTS.lines() {
                let words: Vec<_> = line.split_whitespace().collect();
                let [method @ ("GET" | "POST"), page, ..] = words[..] else { continue };
                let (code, word) = asked(method, page.split('?').next().unwrap());
                assert!(
                    word != nothing && !word.contains("another method"),
                    "{line}: {code} {word}"
                );
                listed += 1;
            }
            assert!(listed > 8, "{CONTENTS}");
            assert_eq!(asked("GET", "/stauts"), (404, nothing.to_owned()));
            let (code, word) = asked("GET", "/promote");
            assert!(code == 405 && word.contains("another method"), "{code} {word}");
            let (code, word) = asked("GET", "/status/security-groups");
            assert!(code == 404 && word.contains("enable_asg_syncing"), "{code} {word}");
            assert_eq!(asked("GET", "/").0, 200);
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn while_the_server_is_away_containers_may_start_shut() {
        let fake = fake(&["web"]);
        let failure = Some("no answer".to_owned());
        fake.reach.send_replace(Reach { apps: apps(&["web"]), failure, ..Reach::default() });
        let text = "shut until the policy server answers: no answer".to_owned();
        assert_eq!(forced(&fake).await, (200, text));
    }

    #[tokio::test]
    async fn a_failure_about_other_apps_says_nothing() {
        let fake = fake(&["web"]);
        let failure = Some("no answer".to_owned());
        fake.reach.send_replace(Reach { apps: apps(&["db"]), failure, ..Reach::default() });
        assert_eq!(forced(&fake).await.0, 500);
    }

    #[tokio::test]
    async fn containers_of_an_earlier_reading_are_no_answer() {
        let fake = fake(&["web"]);
        let containers_failure = Some("decoding container store /s.json".to_owned());
        fake.statuses.send_replace(Status { containers_failure, ..healthy(&["web"]) });
        let text = "failed to force policy poll cycle: the containers are not known: decoding container store /s.json";
        assert_eq!(forced(&fake).await, (500, text.to_owned()));
    }

    #[tokio::test]
    async fn a_kernel_that_cannot_be_changed_fails_the_caller_at_once() {
        let fake = fake(&["web"]);
        fake.statuses
            .send_replace(Status { held: Some("no iptables".into()), ..healthy(&["web"]) });
        let text = "failed to force policy poll cycle: no iptables".to_owned();
        assert_eq!(forced(&fake).await, (500, text));
    }
}
