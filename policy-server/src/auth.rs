//! Who is asking on the external API, and what they may do (spec/policy-server.md §3).
//!
//! A token is believed because we signed it ([`LocalVerifier`]), because UAA says so each time
//! ([`CheckToken`]), or because its issuer's keys say so ([`TokenKeys`]). [`Remembering`] around any
//! of them asks less often.

mod check_token;
mod local;
mod remember;
pub mod token_keys;
pub mod uaa;
mod user;

use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use axum::http::{HeaderMap, header::AUTHORIZATION};
use thiserror::Error;

pub use check_token::CheckToken;
pub use local::{LocalSigner, LocalVerifier, SigningError};
pub use remember::Remembering;
pub use token_keys::TokenKeys;
pub use uaa::Uaa;
pub use user::UserGuid;

/// Whoever a token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user by name, or the client when no user is involved.
    pub subject: String,
    /// The same as Cloud Controller knows them: `sub` in the token. Without it, nobody there.
    pub guid: Option<UserGuid>,
    /// The client the token was issued to, if it says so.
    pub client: Option<String>,
    /// What the issuer granted.
    pub scopes: Vec<String>,
}

/// A token that is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whom it speaks for.
    pub identity: Identity,
    /// Until when, if that is known.
    pub expires: Option<SystemTime>,
}

/// Decides whether a token can be believed. Implementations never put a token into an error.
#[async_trait]
pub trait Verifier: Send + Sync {
    /// Whom `token` speaks for.
    async fn verify(&self, token: &str) -> Result<Verified, TokenRefused>;
}

/// A token that cannot be believed, now.
#[derive(Debug, Clone, Error)]
pub enum TokenRefused {
    /// Whoever knows says that it is no good.
    #[error("the token was refused")]
    Invalid(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// Nobody who knows could be asked.
    #[error("the token could not be verified")]
    Unknown(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

/// Which callers a route is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Those who may see and change everything.
    Admin,
    /// Those who may change policies of their own apps, too.
    Write,
}

const ADMIN: &str = "network.admin";
const WRITE: &str = "network.write";

impl Identity {
    /// Whether guards, quotas and filters do not apply (§3.2).
    pub fn is_admin(&self) -> bool {
        self.has(ADMIN)
    }

    fn has(&self, scope: &str) -> bool {
        self.scopes.iter().any(|granted| granted == scope)
    }
}

impl Access {
    /// The scopes of which one is needed.
    pub fn scopes(self) -> &'static [&'static str] {
        match self {
            Self::Admin => &[ADMIN],
            Self::Write => &[ADMIN, WRITE],
        }
    }

    /// Whether `identity` may use the route. With `self_service`, those who may change policies of
    /// their own apps need no scope for it: the guards decide by what Cloud Controller says (§3.2).
    pub fn admits(self, identity: &Identity, self_service: bool) -> bool {
        (self_service && self == Self::Write)
            || self.scopes().iter().any(|scope| identity.has(scope))
    }
}

/// The token a request carries: the header without one leading `Bearer `, then without one leading
/// `bearer `; `None` without the header. A header that is no text gives a token nobody issues.
pub fn token_of(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().unwrap_or_default();
    let value = value.strip_prefix("Bearer ").unwrap_or(value);
    Some(value.strip_prefix("bearer ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(scopes: &[&str]) -> Identity {
        Identity {
            subject: "alice".into(),
            guid: None,
            client: None,
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
        }
    }

    fn token(header: &str) -> Option<String> {
        let headers = [(AUTHORIZATION, header.parse().unwrap())].into_iter().collect();
        token_of(&headers).map(str::to_owned)
    }

    #[test]
    fn one_prefix_of_each_spelling_is_taken_off() {
        assert_eq!(token("Bearer a").as_deref(), Some("a"));
        assert_eq!(token("bearer a").as_deref(), Some("a"));
        assert_eq!(token("Bearer bearer a").as_deref(), Some("a"));
        assert_eq!(token("bearer bearer a").as_deref(), Some("bearer a"));
        assert_eq!(token("BEARER a").as_deref(), Some("BEARER a"));
        assert_eq!(token("a").as_deref(), Some("a"));
        assert_eq!(token_of(&HeaderMap::new()), None);
    }

    #[test]
    fn a_scope_must_be_granted_exactly() {
        let admits = |access: Access, scopes| access.admits(&with(scopes), false);
        assert!(admits(Access::Admin, &["openid", "network.admin"]));
        assert!(admits(Access::Write, &["network.admin"]));
        assert!(admits(Access::Write, &["network.write"]));
        assert!(!admits(Access::Admin, &["network.write"]));
        assert!(!admits(Access::Write, &["network.adminx", "Network.write", ""]));
        assert!(!admits(Access::Write, &[]));
    }

    #[test]
    fn self_service_opens_what_guards_stand_behind_and_nothing_else() {
        for scopes in [&[][..], &["network.write"], &["other"]] {
            assert!(Access::Write.admits(&with(scopes), true), "{scopes:?}");
            assert!(!Access::Admin.admits(&with(scopes), true), "{scopes:?}");
        }
        assert!(Access::Admin.admits(&with(&["network.admin"]), true));
    }

    proptest! {
        #[test]
        fn any_header_is_some_token(bytes: Vec<u8>) {
            if let Ok(value) = axum::http::HeaderValue::from_bytes(&bytes) {
                let headers = [(AUTHORIZATION, value)].into_iter().collect();
                prop_assert!(token_of(&headers).is_some());
            }
        }
    }
}
