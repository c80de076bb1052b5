//! Tokens that UAA vouches for, asked about one by one (spec/policy-server.md §3.1).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use reqwest::StatusCode;
use thiserror::Error;

use super::{
    Identity, TokenRefused, UserGuid, Verified, Verifier,
    uaa::{CheckedToken, Uaa},
};
use crate::outbound::CallError;

/// No token is longer; the headers it comes in would not be accepted.
const LONGEST: usize = 64 << 10;

/// Believes what UAA believes.
pub struct CheckToken {
    uaa: Arc<Uaa>,
    /// Whether the last call got no verdict, so that the log tells an outage once.
    away: AtomicBool,
}

#[derive(Debug, Error)]
enum Refusal {
    #[error("it has characters that no token has, or too many")]
    NoToken,
    #[error("asking UAA about it")]
    Asking(#[source] CallError),
}

impl CheckToken {
    /// A verifier that asks `uaa`.
    pub fn new(uaa: Arc<Uaa>) -> Self {
        Self { uaa, away: AtomicBool::new(false) }
    }

    fn told(&self, outcome: &Result<CheckedToken, CallError>) {
        match outcome {
            Err(error) if !is_verdict(error) => {
                if !self.away.swap(true, Ordering::Relaxed) {
                    let error = service::log::chain(error);
                    tracing::error!(error, "UAA verifies no tokens, so nobody is let in.");
                }
            }
            _ => {
                if self.away.swap(false, Ordering::Relaxed) {
                    tracing::info!("UAA verifies tokens again.");
                }
            }
        }
    }
}

#[async_trait]
impl Verifier for CheckToken {
    async fn verify(&self, token: &str) -> Result<Verified, TokenRefused> {
        if !could_be_token(token) {
            return Err(TokenRefused::Invalid(Arc::new(Refusal::NoToken)));
        }
        let outcome = self.uaa.check_token(token).await;
        self.told(&outcome);
        match outcome {
            Ok(checked) => Ok(Verified::from(checked)),
            Err(error) if is_verdict(&error) => {
                Err(TokenRefused::Invalid(Arc::new(Refusal::Asking(error))))
            }
            Err(error) => Err(TokenRefused::Unknown(Arc::new(Refusal::Asking(error)))),
        }
    }
}

/// 400 is how UAA says that a token is no good. A 401 is about our own credentials.
fn is_verdict(error: &CallError) -> bool {
    matches!(error, CallError::Status(StatusCode::BAD_REQUEST))
}

/// Whether `token` consists of what tokens consist of (RFC 6750 §2.1). Others would be read by UAA as
/// something else than was sent, as the body is not escaped: with `&`, as several parameters.
fn could_be_token(token: &str) -> bool {
    (1..=LONGEST).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte))
}

impl From<CheckedToken> for Verified {
    fn from(checked: CheckedToken) -> Self {
        let CheckedToken { scope, sub, user_name, client_id, exp } = checked;
        let expires =
            exp.as_u64().and_then(|s| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(s)));
        let identity = Identity {
            guid: UserGuid::new(&sub),
            subject: if user_name.is_empty() { sub } else { user_name },
            client: (!client_id.is_empty()).then_some(client_id),
            scopes: scope,
        };
        Self { identity, expires }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity(answer: &str) -> Verified {
        gocompat::json::from_slice::<CheckedToken>(answer.as_bytes()).unwrap().into()
    }

    #[test]
    fn the_subject_is_the_user_or_else_the_client() {
        let user = identity(r#"{"user_name":"alice","sub":"id-1","client_id":"cf","scope":["a"]}"#);
        assert_eq!(
            user.identity,
            Identity {
                subject: "alice".into(),
                guid: UserGuid::new("id-1"),
                client: Some("cf".into()),
                scopes: vec!["a".into()],
            }
        );
        let client = identity(r#"{"user_name":null,"sub":"id-2","scope":null}"#).identity;
        assert_eq!((client.subject.as_str(), client.guid), ("id-2", UserGuid::new("id-2")));
        let nobody = identity("{}").identity;
        assert_eq!((nobody.subject.as_str(), nobody.guid), ("", None));
    }

    #[test]
    fn only_a_number_is_a_time_of_expiry() {
        let at = |exp: &str| identity(&format!(r#"{{"exp":{exp}}}"#)).expires;
        assert_eq!(
            at("1700000000"),
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
        );
        for exp in ["null", "\"soon\"", "-1", "[]", "18446744073709551615"] {
            assert_eq!(at(exp), None, "{exp}");
        }
    }

    #[test]
    fn what_would_change_the_form_is_no_token() {
        for token in ["valid-token", "a.b_c~d+e/f=", "eyJhbGciOi.J9.x-_"] {
            assert!(could_be_token(token), "{token}");
        }
        for token in ["", "a&token=b", "a b", "a%26b", "a\nb", "Basic a", "ü", "a;b"] {
            assert!(!could_be_token(token), "{token:?}");
        }
        assert!(!could_be_token(&"a".repeat(LONGEST + 1)));
    }

    proptest! {
        #[test]
        fn any_answer_is_an_identity_or_an_error(answer: Vec<u8>) {
            if let Ok(checked) = gocompat::json::from_slice::<CheckedToken>(&answer) {
                let _ = Verified::from(checked);
            }
        }
    }
}
