//! Who is asking on the external API, and what they may do (spec/policy-server.md §3).

mod local;

use async_trait::async_trait;
use axum::http::{HeaderMap, header::AUTHORIZATION};
use thiserror::Error;

pub use local::{LocalSigner, LocalVerifier, SigningError};

/// Whoever a token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user, or the client when no user is involved.
    pub subject: String,
    /// What the issuer granted.
    pub scopes: Vec<String>,
}

/// Decides whether a token can be believed. Implementations never put a token into an error.
#[async_trait]
pub trait Verifier: Send + Sync {
    /// Who `token` speaks for.
    async fn verify(&self, token: &str) -> Result<Identity, TokenRefused>;
}

/// A token that cannot be believed, now.
#[derive(Debug, Error)]
#[error("the token was refused")]
pub struct TokenRefused(#[source] pub Box<dyn std::error::Error + Send + Sync>);

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

    /// Whether `identity` may use the route.
    pub fn admits(self, identity: &Identity) -> bool {
        self.scopes().iter().any(|scope| identity.has(scope))
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
        let with = |scopes: &[&str]| Identity {
            subject: "alice".into(),
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
        };
        assert!(Access::Admin.admits(&with(&["openid", "network.admin"])));
        assert!(Access::Write.admits(&with(&["network.admin"])));
        assert!(Access::Write.admits(&with(&["network.write"])));
        assert!(!Access::Admin.admits(&with(&["network.write"])));
        assert!(!Access::Write.admits(&with(&["network.adminx", "Network.write", ""])));
        assert!(!Access::Write.admits(&with(&[])));
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
