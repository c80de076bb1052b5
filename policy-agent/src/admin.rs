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
mod tests;
