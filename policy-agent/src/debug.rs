//! The debug listener (spec/cell.md §D.8): the level of the log, and whether what policies let in is told.
//! BOSH's health check asks here whether the agent lives.

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use serde::{Deserialize, Serialize};
use service::log::LevelSwitch;
use tokio::sync::{mpsc, oneshot};

use crate::{cycle::Wake, denied::Accepted};

#[derive(Clone)]
struct Debug {
    accepted: Accepted,
    wake: mpsc::Sender<Wake>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Switch {
    enabled: bool,
}

/// The listener's URL table.
pub(crate) fn routes(level: LevelSwitch, accepted: Accepted, wake: mpsc::Sender<Wake>) -> Router {
    let logging = get(is_told).put(tell);
    Router::new()
        .route("/iptables-c2c-logging", logging)
        .with_state(Debug { accepted, wake })
        .merge(service::debug::routes(level))
}

async fn is_told(State(debug): State<Debug>) -> Json<Switch> {
    Json(Switch { enabled: debug.accepted.is_told() })
}

/// Whatever its content type, as the existing system takes it. The kernel follows at once.
async fn tell(State(debug): State<Debug>, body: String) -> Result<Json<Switch>, StatusCode> {
    let switch: Switch =
        gocompat::json::from_slice(body.as_bytes()).map_err(|_| StatusCode::BAD_REQUEST)?;
    debug.accepted.tell(switch.enabled);
    // Nobody waits for the pass; a full channel means that one is about to happen anyway.
    let _ = debug.wake.try_send(Wake::Forced(oneshot::channel().0));
    Ok(Json(switch))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use axum::extract::State;

    use super::*;

    #[tokio::test]
    async fn what_policies_let_in_is_told_from_the_moment_somebody_says_so() {
        let (wake, mut wakes) = mpsc::channel(1);
        let accepted = Accepted::new(false, NonZeroU32::MIN);
        let debug = Debug { accepted: accepted.clone(), wake };
        assert!(!is_told(State(debug.clone())).await.0.enabled);
        let answer = tell(State(debug.clone()), r#"{"enabled":true}"#.into()).await.unwrap();
        assert!(answer.0.enabled);
        assert!(matches!(wakes.try_recv(), Ok(Wake::Forced(_))));
        assert_eq!(accepted.rate(), Some(NonZeroU32::MIN));
        let wrong = tell(State(debug.clone()), "yes".into()).await.unwrap_err();
        assert_eq!(wrong, StatusCode::BAD_REQUEST);
        assert!(is_told(State(debug)).await.0.enabled);
    }
}
