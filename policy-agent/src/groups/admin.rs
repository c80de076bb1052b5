//! What the networker calls (spec/cell.md §D.8), and how things stand with security groups.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::{any, get},
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    cycle::Wake,
    poll::Reach,
    status::{Standing, Status},
};

const UPDATE: &str = "/force-asgs-for-container";
const STATUS: &str = "/status/security-groups";
const CLEAN_UP: &str = "/force-orphaned-asgs-cleanup";

#[derive(Clone)]
struct Admin {
    wake: mpsc::Sender<Wake>,
    statuses: watch::Receiver<Status>,
    reach: watch::Receiver<Reach>,
    patience: Duration,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct About {
    container: String,
}

/// The URL table.
pub(super) fn routes(
    wake: mpsc::Sender<Wake>,
    statuses: watch::Receiver<Status>,
    reach: watch::Receiver<Reach>,
    patience: Duration,
) -> Router {
    Router::new()
        .route(UPDATE, any(update))
        .route(CLEAN_UP, any(clean_up))
        .route(STATUS, get(status))
        .with_state(Admin { wake, statuses, reach, patience })
}

/// The same for an agent that leaves security groups to the networker: it is told so, and writes them
/// itself.
pub(crate) fn disabled() -> Router {
    let refuse = || async {
        (StatusCode::METHOD_NOT_ALLOWED, "ASG syncing has been disabled administratively")
    };
    let untold = || async {
        (StatusCode::NOT_FOUND, "security groups are the networker's: enable_asg_syncing is off\n")
    };
    Router::new().route(UPDATE, any(refuse)).route(CLEAN_UP, any(refuse)).route(STATUS, get(untold))
}

#[derive(Serialize)]
struct StatusBody {
    #[serde(flatten)]
    status: Status,
    /// Why the policy server tells no groups.
    server_failure: Option<String>,
}

async fn status(State(admin): State<Admin>) -> Json<StatusBody> {
    let status = admin.statuses.borrow().clone();
    Json(StatusBody { status, server_failure: admin.reach.borrow().failure.clone() })
}

/// Answers 200 once the kernel enforces the container's groups, and for a container that is not in the
/// store. One whose groups nobody can tell keeps what the networker gave it, and may start meanwhile:
/// also 200, with a word.
async fn update(
    State(mut admin): State<Admin>,
    Query(About { container }): Query<About>,
) -> (StatusCode, String) {
    if container.is_empty() {
        return unnamed();
    }
    let patience = admin.patience;
    match timeout(patience, admin.enforced(&container)).await {
        Ok(Ok(None)) => (StatusCode::OK, format!("updated container {container}")),
        Ok(Ok(Some(why))) => {
            (StatusCode::OK, format!("container {container} keeps its rules: {why}"))
        }
        Ok(Err(why)) => failed("update", &container, &why),
        Err(_) => failed("update", &container, &too_late(patience)),
    }
}

/// Answers 200 once nothing is left of the groups of a container that is not in the store.
async fn clean_up(
    State(mut admin): State<Admin>,
    Query(About { container }): Query<About>,
) -> (StatusCode, String) {
    if container.is_empty() {
        return unnamed();
    }
    let patience = admin.patience;
    match timeout(patience, admin.pass(Some(container.clone()))).await {
        Ok(Ok(())) => (StatusCode::OK, format!("cleaned up ASGs for container {container}")),
        Ok(Err(why)) => failed("clean up", &container, &why),
        Err(_) => failed("clean up", &container, &too_late(patience)),
    }
}

fn unnamed() -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, "no container specified".to_owned())
}

fn too_late(patience: Duration) -> String {
    format!("not done after {} seconds", patience.as_secs())
}

fn failed(what: &str, container: &str, why: &str) -> (StatusCode, String) {
    tracing::warn!(container.handle = container, error = why, "Could not {what} security groups.");
    let text = format!("failed to {what} ASGs for container {container}: {why}");
    (StatusCode::INTERNAL_SERVER_ERROR, text)
}

impl Admin {
    /// Waits until the container's groups are enforced; or says why it keeps what it has.
    async fn enforced(&mut self, container: &str) -> Result<Option<String>, String> {
        self.pass(None).await?;
        let mut reach = self.reach.clone();
        let told = |status: &Status| {
            status.held.is_some() || status.containers.get(container) != Some(&Standing::Unknown)
        };
        let spaces = self.statuses.borrow().spaces.clone();
        let refused =
            reach.wait_for(|reach| reach.failure.is_some() && reach.spaces.is_superset(&spaces));
        tokio::select! {
            biased;
            status = self.statuses.wait_for(told) => {
                let status = status.map_err(|_| stopping())?;
                if let Some(held) = &status.held {
                    return Err(held.clone());
                }
                match status.containers.get(container) {
                    None | Some(Standing::Enforced | Standing::Unknown) => Ok(None),
                    Some(Standing::Kept(why)) => Ok(Some(why.clone())),
                    Some(Standing::Unplaced(why)) => Err(why.clone()),
                }
            }
            reach = refused => {
                let reach = reach.map_err(|_| stopping())?;
                let why = reach.failure.clone().unwrap_or_default();
                Ok(Some(format!("the policy server has not told its security groups: {why}")))
            }
        }
    }

    /// One pass from now on, which must not be held.
    async fn pass(&mut self, gone: Option<String>) -> Result<(), String> {
        let (passed, over) = oneshot::channel();
        self.wake.send(Wake::Forced { gone, passed }).await.map_err(|_| stopping())?;
        over.await.map_err(|_| stopping())?;
        self.statuses.borrow().held.clone().map_or(Ok(()), Err)
    }
}

fn stopping() -> String {
    "the agent is stopping".to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// An agent whose passes change nothing but what a test sets.
    struct Fake {
        admin: Admin,
        statuses: watch::Sender<Status>,
        reach: watch::Sender<Reach>,
        gone: mpsc::UnboundedReceiver<Option<String>>,
    }

    fn fake(standing: Option<Standing>) -> Fake {
        let (wake, mut wakes) = mpsc::channel(1);
        let (tell, gone) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Wake::Forced { gone, passed }) = wakes.recv().await {
                tell.send(gone).unwrap();
                passed.send(()).unwrap();
            }
        });
        let containers = standing.map(|standing| ("web".to_owned(), standing));
        let spaces = BTreeSet::from(["a".to_owned()]);
        let status =
            Status { spaces, containers: containers.into_iter().collect(), ..Status::default() };
        let (statuses, watching) = watch::channel(status);
        let (reach, reaching) = watch::channel(Reach::default());
        let patience = Duration::from_millis(50);
        let admin = Admin { wake, statuses: watching, reach: reaching, patience };
        Fake { admin, statuses, reach, gone }
    }

    async fn forced(fake: &Fake, container: &str) -> (u16, String) {
        let about = Query(About { container: container.into() });
        let (status, text) = update(State(fake.admin.clone()), about).await;
        (status.as_u16(), text)
    }

    #[tokio::test]
    async fn a_container_is_updated_when_its_groups_are_enforced() {
        let updated = (200, "updated container web".to_owned());
        assert_eq!(forced(&fake(Some(Standing::Enforced)), "web").await, updated);
        assert_eq!(forced(&fake(None), "web").await, updated, "it is unknown here");
        assert_eq!(forced(&fake(None), "").await, (400, "no container specified".into()));
    }

    #[tokio::test]
    async fn groups_that_are_on_their_way_are_waited_for() {
        let fake = fake(Some(Standing::Unknown));
        let (admin, statuses) = (fake.admin.clone(), fake.statuses);
        let waiting = tokio::spawn(async move {
            update(State(admin), Query(About { container: "web".into() })).await.0.as_u16()
        });
        tokio::task::yield_now().await;
        statuses.send_modify(|status| {
            status.containers.insert("web".into(), Standing::Enforced);
        });
        assert_eq!(waiting.await.unwrap(), 200);
    }

    #[tokio::test]
    async fn while_the_server_is_away_containers_may_start_with_what_they_have() {
        let fake = fake(Some(Standing::Unknown));
        let failure = Some("no answer".to_owned());
        fake.reach.send_replace(Reach { spaces: BTreeSet::new(), failure: failure.clone() });
        assert_eq!(forced(&fake, "web").await.0, 500, "a failure about other spaces says nothing");
        fake.reach.send_replace(Reach { spaces: BTreeSet::from(["a".into()]), failure });
        let (status, text) = forced(&fake, "web").await;
        assert_eq!(status, 200);
        assert!(text.ends_with("has not told its security groups: no answer"), "{text}");
    }

    #[tokio::test]
    async fn what_cannot_be_done_fails_and_what_cannot_be_read_does_not() {
        let unplaced = fake(Some(Standing::Unplaced("it has no chain".into())));
        let text = "failed to update ASGs for container web: it has no chain".to_owned();
        assert_eq!(forced(&unplaced, "web").await, (500, text));
        let kept = fake(Some(Standing::Kept("group x cannot be read".into())));
        let text = "container web keeps its rules: group x cannot be read".to_owned();
        assert_eq!(forced(&kept, "web").await, (200, text));
        kept.statuses.send_modify(|status| status.held = Some("no iptables".into()));
        let text = "failed to update ASGs for container web: no iptables".to_owned();
        assert_eq!(forced(&kept, "web").await, (500, text));
    }

    #[tokio::test]
    async fn a_cleaning_says_who_is_gone() {
        let mut fake = fake(None);
        let about = Query(About { container: "web".into() });
        let (status, text) = clean_up(State(fake.admin.clone()), about).await;
        assert_eq!((status.as_u16(), text.as_str()), (200, "cleaned up ASGs for container web"));
        assert_eq!(fake.gone.recv().await.unwrap().as_deref(), Some("web"));
        let (status, _) = clean_up(State(fake.admin.clone()), Query(About::default())).await;
        assert_eq!(status.as_u16(), 400);
    }
}
