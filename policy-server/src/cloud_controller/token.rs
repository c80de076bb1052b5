//! The server's own token (spec/policy-server.md §3.3), asked for once and used while it is good.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use moka::{Expiry, future::Cache};
use reqwest::header::HeaderValue;
use thiserror::Error;

use crate::{
    auth::{Uaa, uaa::ClientToken},
    outbound::CallError,
};

/// How long before its end a token is replaced, so that none ends on its way.
const MARGIN: Duration = Duration::from_secs(60);

/// How long a token is used whose end is not known.
const UNKNOWN: Duration = Duration::from_secs(60);

/// No token of our own.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each text says what the variant means")]
pub enum TokenError {
    #[error("asking UAA for a token")]
    Call(#[source] CallError),
    #[error("UAA's answer has no token that a header could hold")]
    NoToken,
}

/// The token, whenever it is needed. Those who need it at the same time share one question.
pub(super) struct ServerToken {
    uaa: Arc<Uaa>,
    held: Cache<(), Held>,
}

#[derive(Clone)]
struct Held {
    authorization: HeaderValue,
    good_for: Duration,
}

struct GoodFor;

impl ServerToken {
    pub(super) fn new(uaa: Arc<Uaa>) -> Self {
        let held = Cache::builder().max_capacity(1).expire_after(GoodFor).build();
        Self { uaa, held }
    }

    /// The header that shows the token.
    pub(super) async fn authorization(&self) -> Result<HeaderValue, Arc<TokenError>> {
        let held = self.held.try_get_with((), self.fetch()).await?;
        Ok(held.authorization)
    }

    /// The header to show after `refused` was refused: another token, unless somebody has already
    /// got one.
    pub(super) async fn instead_of(
        &self,
        refused: &HeaderValue,
    ) -> Result<HeaderValue, Arc<TokenError>> {
        if self.held.get(&()).await.is_some_and(|held| held.authorization == refused) {
            self.held.invalidate(&()).await;
        }
        self.authorization().await
    }

    async fn fetch(&self) -> Result<Held, TokenError> {
        let answer = self.uaa.client_token().await.map_err(TokenError::Call)?;
        Held::of(&answer)
    }
}

impl Held {
    fn of(answer: &ClientToken) -> Result<Self, TokenError> {
        if answer.access_token.is_empty() {
            return Err(TokenError::NoToken);
        }
        // In lower case: Cloud Controllers are known that are particular about it.
        let mut authorization = HeaderValue::from_str(&format!("bearer {}", answer.access_token))
            .map_err(|_| TokenError::NoToken)?;
        authorization.set_sensitive(true);
        let lifetime = answer.expires_in.as_u64().map(Duration::from_secs);
        let good_for = lifetime.map_or(UNKNOWN, |lifetime| lifetime - MARGIN.min(lifetime / 10));
        Ok(Self { authorization, good_for })
    }
}

impl Expiry<(), Held> for GoodFor {
    fn expire_after_create(&self, (): &(), held: &Held, _: Instant) -> Option<Duration> {
        Some(held.good_for)
    }

    /// A token that is over but not yet swept counts as one that is replaced.
    fn expire_after_update(
        &self,
        (): &(),
        held: &Held,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(held.good_for)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn held(expires_in: serde_json::Value) -> Held {
        Held::of(&ClientToken { access_token: "secret".into(), expires_in }).unwrap()
    }

    #[test]
    fn a_token_is_replaced_before_its_end() {
        for (expires_in, seconds) in [
            (json!(43_199), 43_139),
            (json!(100), 90),
            (json!(0), 0),
            (json!(null), 60),
            (json!("soon"), 60),
            (json!(-1), 60),
        ] {
            assert_eq!(held(expires_in.clone()).good_for.as_secs(), seconds, "{expires_in}");
        }
    }

    #[test]
    fn the_header_is_in_lower_case_and_hides_in_logs() {
        let authorization = held(json!(1)).authorization;
        assert_eq!(authorization.to_str().unwrap(), "bearer secret");
        assert!(!format!("{authorization:?}").contains("secret"));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for token in ["", "a\nb", "a\0"] {
            let answer = ClientToken { access_token: token.into(), expires_in: json!(60) };
            assert!(Held::of(&answer).is_err(), "{token:?}");
        }
    }
}
