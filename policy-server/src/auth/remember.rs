//! Verdicts on tokens, remembered for a while.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use moka::{Expiry, future::Cache};
use sha2::{Digest, Sha256};

use super::{TokenRefused, Verified, Verifier};

/// How many tokens are remembered. Beyond that, those asked for least are forgotten.
const MOST: u64 = 10_000;

/// A verifier that asks another one and remembers for a while whom a token speaks for. Callers who
/// come with the same token at the same time share one question.
///
/// A token that is revoked keeps its bearer's access for at most the time given. Refusals are not
/// remembered, nor are tokens whose end is not known. What is kept of a token is its hash.
pub struct Remembering {
    inner: Arc<dyn Verifier>,
    verdicts: Cache<[u8; 32], Verified>,
}

impl Remembering {
    /// Remembers what `inner` says for `at_most` this long, and never beyond a token's own end.
    pub fn new(inner: Arc<dyn Verifier>, at_most: Duration) -> Self {
        let verdicts =
            Cache::builder().max_capacity(MOST).expire_after(Lifetime { at_most }).build();
        Self { inner, verdicts }
    }
}

#[async_trait]
impl Verifier for Remembering {
    async fn verify(&self, token: &str) -> Result<Verified, TokenRefused> {
        let key = Sha256::digest(token.as_bytes()).into();
        let verdict = self.verdicts.try_get_with(key, self.inner.verify(token)).await;
        verdict.map_err(|refused| TokenRefused::clone(&refused))
    }
}

struct Lifetime {
    at_most: Duration,
}

impl Lifetime {
    fn of(&self, verified: &Verified, now: SystemTime) -> Duration {
        let left = verified.expires.and_then(|end| end.duration_since(now).ok());
        left.unwrap_or_default().min(self.at_most)
    }
}

impl Expiry<[u8; 32], Verified> for Lifetime {
    fn expire_after_create(&self, _: &[u8; 32], value: &Verified, _: Instant) -> Option<Duration> {
        Some(self.of(value, SystemTime::now()))
    }

    /// A verdict that is over but not yet swept counts as one that is replaced.
    fn expire_after_update(
        &self,
        _: &[u8; 32],
        value: &Verified,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(self.of(value, SystemTime::now()))
    }
}

#[cfg(test)]
mod tests;
