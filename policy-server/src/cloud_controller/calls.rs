//! Sending questions: with the token, again where that may help, and never for ever.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::{Client, StatusCode, Url, header::AUTHORIZATION};

use super::{
    CloudControllerError,
    token::{ServerToken, TokenError},
};
use crate::{
    auth::Uaa,
    metrics::{Metrics, Outcome, Peer},
    outbound::{self, CallError},
};

/// How often a question is asked again that got no answer.
const RETRIES: u32 = 2;

/// The shortest wait before asking again; each further one is twice as long. Up to as much again is
/// added by chance, so that servers whose questions failed together do not ask together.
const PAUSE_MS: u64 = 50;

/// Sends questions to Cloud Controller.
pub(super) struct Calls {
    token: ServerToken,
    metrics: Metrics,
}

/// How much of an answer there may be, and how late.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub timeout: Duration,
    pub longest: usize,
}

/// Why there is no answer.
enum Failure {
    Token(Arc<TokenError>),
    Call(CallError),
}

impl Calls {
    pub(super) fn new(uaa: Arc<Uaa>, metrics: Metrics) -> Self {
        Self { token: ServerToken::new(uaa), metrics }
    }

    /// The body of a 200 to `GET url`, which is about `what`.
    pub(super) async fn get(
        &self,
        what: &'static str,
        http: &Client,
        url: Url,
        limits: Limits,
    ) -> Result<Vec<u8>, CloudControllerError> {
        let began = Instant::now();
        let asking = self.ask(http, &url, limits.longest);
        let answer = tokio::time::timeout(limits.timeout, asking)
            .await
            .unwrap_or(Err(Failure::Call(CallError::TooSlow(limits.timeout))));
        self.metrics.outbound(Peer::CloudController, Outcome::of(&answer), began.elapsed());
        answer.map_err(|failure| match failure {
            Failure::Token(source) => CloudControllerError::Token(source),
            Failure::Call(source) => CloudControllerError::Call { what, source },
        })
    }

    async fn ask(&self, http: &Client, url: &Url, longest: usize) -> Result<Vec<u8>, Failure> {
        let mut authorization = self.token.authorization().await.map_err(Failure::Token)?;
        let (mut retries, mut renewed) = (0, false);
        loop {
            let request = http.get(url.clone()).header(AUTHORIZATION, authorization.clone());
            match outbound::body(request, longest).await {
                // The token may have been revoked, or the keys changed that it was signed with.
                Err(CallError::Status(StatusCode::UNAUTHORIZED)) if !renewed => {
                    renewed = true;
                    let other = self.token.instead_of(&authorization).await;
                    authorization = other.map_err(Failure::Token)?;
                }
                Err(error) if error.may_pass() && retries < RETRIES => {
                    tokio::time::sleep(pause(retries)).await;
                    retries += 1;
                }
                outcome => return outcome.map_err(Failure::Call),
            }
        }
    }
}

fn pause(retries: u32) -> Duration {
    let shortest = PAUSE_MS << retries;
    Duration::from_millis(shortest + fastrand::u64(..=shortest))
}
