//! The local listener: the networker forces a cycle before an app starts (spec/cell.md §D.8), and
//! operators ask how things stand.

use std::{collections::BTreeSet, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{any, get},
};
use policy::AppGuid;
use serde::Serialize;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use crate::{cycle::Wake, poll::Reach, status::Status};

#[derive(Clone)]
struct Admin {
    wake: mpsc::Sender<Wake>,
    statuses: watch::Receiver<Status>,
    reach: watch::Receiver<Reach>,
    patience: Duration,
}

/// The listener's URL table.
pub(crate) fn routes(
    wake: mpsc::Sender<Wake>,
    statuses: watch::Receiver<Status>,
    reach: watch::Receiver<Reach>,
    patience: Duration,
) -> Router {
    Router::new()
        .route("/force-policy-poll-cycle", any(force))
        .route("/status", get(status))
        .with_state(Admin { wake, statuses, reach, patience })
}

#[derive(Serialize)]
struct StatusBody {
    enforcement: Status,
    /// Why the policy server gives no usable answer, if it does not.
    server_failure: Option<String>,
}

async fn status(State(admin): State<Admin>) -> Json<StatusBody> {
    let enforcement = admin.statuses.borrow().clone();
    let server_failure = admin.reach.borrow().failure.clone();
    Json(StatusBody { enforcement, server_failure })
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
    async fn enforced(&mut self) -> Result<(), Shut> {
        let apps = self.pass().await?;
        if let Some(held) = &self.statuses.borrow().held {
            return Err(Shut::Failed(held.clone()));
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
