//! Tokens verified here, with the public keys of whoever issues them: UAA's `/token_keys`, or the
//! JWKS of another issuer (design §2.5).
//!
//! What only the issuer knows is not seen: a token that is revoked is believed until it expires.

mod key_set;

use std::{
    sync::{Arc, PoisonError, RwLock, Weak},
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use reqwest::{Client, Url};
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::Mutex;

use self::key_set::{KeySet, NoUsableKey};
use super::{Identity, TokenRefused, UserGuid, Verified, Verifier};
use crate::outbound::{self, CallError};

/// No set of keys is longer.
const LONGEST: usize = 1 << 20;

/// How far clocks may be apart.
const LEEWAY_SECONDS: u64 = 5;

/// What UAA ends the ids of its refresh tokens with. They are signed with the same keys.
const REFRESH_TOKEN: &str = "-r";

/// Whose tokens are believed, and where the keys are.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the keys are, such as `https://uaa.example/token_keys`.
    pub url: Url,
    /// Who must have issued a token: one of these, exactly as in its `iss`. UAA's is
    /// `https://uaa.<system domain>/oauth/token`.
    pub issuers: Vec<String>,
    /// For whom a token must have been issued: one of these must be in its `aud`. UAA puts there
    /// what stands before the dot in each scope: `network` is in the tokens of those who have
    /// `network.write` or `network.admin`, `cloud_controller` in those of space developers without.
    pub audiences: Vec<String>,
    /// How often the keys are fetched, so that one that was withdrawn is forgotten.
    pub refresh_every: Duration,
    /// The shortest time between two fetches, whatever ids of keys callers come with.
    pub floor: Duration,
    /// How long keys are used that cannot be fetched again.
    pub keep_for: Duration,
    /// How long one fetch may take.
    pub timeout: Duration,
}

impl Settings {
    /// Settings with the usual times.
    pub fn new(url: Url, issuers: Vec<String>, audiences: Vec<String>) -> Self {
        Self {
            url,
            issuers,
            audiences,
            refresh_every: Duration::from_secs(300),
            floor: Duration::from_secs(10),
            // Longer than the tokens of an issuer that is away live.
            keep_for: Duration::from_secs(3600),
            timeout: super::uaa::Settings::TIMEOUT,
        }
    }
}

/// Settings with which no token could ever be verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// Any issuer would do.
    #[error("verifying tokens here needs the name of at least one issuer")]
    NoIssuer,
    /// Tokens meant for anybody would do.
    #[error("verifying tokens here needs at least one audience")]
    NoAudience,
}

/// Believes what an issuer signed, RS256 or ES256, and nothing else.
pub struct TokenKeys(Arc<Inner>);

struct Inner {
    settings: Settings,
    http: Client,
    known: RwLock<Known>,
    /// When keys were last fetched, or tried to be; held while somebody does.
    fetched: Mutex<Option<Instant>>,
}

/// What the fetches until now have brought.
#[derive(Default)]
struct Known {
    keys: Option<(Arc<KeySet>, Instant)>,
    failure: Option<Arc<FetchError>>,
}

#[derive(Debug, Error)]
enum FetchError {
    #[error("fetching the issuer's keys")]
    Call(#[source] CallError),
    #[error("reading the issuer's keys")]
    Unusable(#[source] NoUsableKey),
}

#[derive(Debug, Error)]
enum Refusal {
    #[error("it cannot be verified")]
    Invalid(#[source] jsonwebtoken::errors::Error),
    #[error("it is not signed with RS256 or ES256")]
    Algorithm,
    #[error("it asks for extensions that are not known here")]
    Extensions,
    #[error("the issuer has no key {0:?} of its kind")]
    UnknownKey(Option<String>),
    #[error("it is a refresh token")]
    RefreshToken,
    #[error("looking for key {id:?}")]
    NoKeys { id: Option<String>, source: Arc<FetchError> },
}

/// The claims we read, beside those the library checks.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    #[serde(default)]
    user_name: String,
    client_id: Option<String>,
    scope: Scopes,
    exp: u64,
    jti: Option<String>,
}

/// UAA writes a list, others one text (RFC 8693 §4.2).
#[derive(Deserialize)]
#[serde(untagged)]
enum Scopes {
    List(Vec<String>),
    Text(String),
}

impl TokenKeys {
    /// A verifier that keeps fetching the keys, on a task that ends with it. `http` comes from
    /// [`outbound::client`]. Must be called within a runtime.
    pub fn start(settings: Settings, http: Client) -> Result<Self, SettingsError> {
        if settings.issuers.is_empty() {
            return Err(SettingsError::NoIssuer);
        }
        if settings.audiences.is_empty() {
            return Err(SettingsError::NoAudience);
        }
        let inner =
            Arc::new(Inner { settings, http, known: RwLock::default(), fetched: Mutex::default() });
        tokio::spawn(keep_fresh(Arc::downgrade(&inner)));
        Ok(Self(inner))
    }
}

#[async_trait]
impl Verifier for TokenKeys {
    async fn verify(&self, token: &str) -> Result<Verified, TokenRefused> {
        let invalid = |refusal| TokenRefused::Invalid(Arc::new(refusal));
        let header =
            jsonwebtoken::decode_header(token).map_err(|error| invalid(Refusal::Invalid(error)))?;
        let algorithm = acceptable(&header).map_err(invalid)?;
        let key = self.0.key(header.kid.as_deref(), algorithm).await?;
        let rules = self.0.settings.rules(algorithm);
        let verified = jsonwebtoken::decode::<Claims>(token, &key, &rules)
            .map_err(|error| invalid(Refusal::Invalid(error)))?;
        Verified::of(verified.claims).map_err(invalid)
    }
}

/// The algorithm of a token, if it is one of ours. Which key is looked for depends on it, so that a
/// public key is never taken for a shared secret.
fn acceptable(header: &Header) -> Result<Algorithm, Refusal> {
    if header.crit.is_some() {
        return Err(Refusal::Extensions);
    }
    match header.alg {
        algorithm @ (Algorithm::RS256 | Algorithm::ES256) => Ok(algorithm),
        _ => Err(Refusal::Algorithm),
    }
}

impl Settings {
    fn rules(&self, algorithm: Algorithm) -> Validation {
        let mut rules = Validation::new(algorithm);
        rules.algorithms = vec![algorithm];
        rules.set_issuer(&self.issuers);
        rules.set_audience(&self.audiences);
        rules.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        rules.validate_nbf = true;
        rules.leeway = LEEWAY_SECONDS;
        rules
    }
}

impl Inner {
    /// The key a token is signed with, fetched if need be.
    async fn key(
        self: &Arc<Self>,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<DecodingKey, TokenRefused> {
        if let Some(key) = self.known_key(id, algorithm) {
            return Ok(key);
        }
        self.refresh().await;
        self.known_key(id, algorithm).ok_or_else(|| {
            // Ids may be long, and are the caller's.
            let id = id.map(|id| id.chars().take(64).collect());
            match self.known.read().unwrap_or_else(PoisonError::into_inner).failure.clone() {
                Some(source) => TokenRefused::Unknown(Arc::new(Refusal::NoKeys { id, source })),
                None => TokenRefused::Invalid(Arc::new(Refusal::UnknownKey(id))),
            }
        })
    }

    fn known_key(&self, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let (keys, at) = known.keys.as_ref()?;
        if at.elapsed() > self.settings.keep_for {
            return None;
        }
        keys.find(id, algorithm).cloned()
    }

    /// Fetches the keys, unless somebody did a moment ago; waits for whoever is at it. The work has
    /// a task of its own, since a caller who hangs up must not be able to make it start all over.
    async fn refresh(self: &Arc<Self>) {
        let inner = self.clone();
        let fetching = tokio::spawn(async move {
            let mut fetched = inner.fetched.lock().await;
            if fetched.is_none_or(|at| at.elapsed() >= inner.settings.floor) {
                let outcome = inner.fetch().await;
                *fetched = Some(Instant::now());
                inner.learn(outcome);
            }
        });
        if let Err(error) = fetching.await {
            tracing::error!(%error, "The task that fetches keys ended.");
        }
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        let request = self.http.get(self.settings.url.clone());
        let fetch = outbound::json(request, LONGEST);
        let wire =
            outbound::within(self.settings.timeout, fetch).await.map_err(FetchError::Call)?;
        KeySet::of(wire).map_err(FetchError::Unusable)
    }

    fn learn(&self, outcome: Result<KeySet, FetchError>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(keys) => {
                if known.failure.take().is_some() {
                    tracing::info!("The keys that verify tokens can be fetched again.");
                }
                known.keys = Some((Arc::new(keys), Instant::now()));
            }
            Err(error) => {
                if known.failure.is_none() {
                    let error = service::log::chain(&error);
                    tracing::error!(error, "Could not fetch the keys that verify tokens.");
                }
                known.failure = Some(Arc::new(error));
            }
        }
    }
}

/// Fetches now and at every interval, as long as anybody verifies tokens.
async fn keep_fresh(inner: Weak<Inner>) {
    while let Some(inner) = inner.upgrade() {
        let every = inner.settings.refresh_every;
        inner.refresh().await;
        drop(inner);
        tokio::time::sleep(every).await;
    }
}

impl Verified {
    fn of(claims: Claims) -> Result<Self, Refusal> {
        let Claims { sub, user_name, client_id, scope, exp, jti } = claims;
        if jti.is_some_and(|id| id.ends_with(REFRESH_TOKEN)) {
            return Err(Refusal::RefreshToken);
        }
        let identity = Identity {
            guid: UserGuid::new(&sub),
            subject: if user_name.is_empty() { sub } else { user_name },
            client: client_id,
            scopes: match scope {
                Scopes::List(scopes) => scopes,
                Scopes::Text(text) => text.split_ascii_whitespace().map(str::to_owned).collect(),
            },
        };
        let expires = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(exp));
        Ok(Self { identity, expires })
    }
}

#[cfg(test)]
mod tests;
