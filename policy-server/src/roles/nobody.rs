use std::sync::Arc;

use async_trait::async_trait;
use thiserror::Error;

use crate::{
    auth::{TokenRefused, Verified, Verifier},
    callers::Admission,
};

/// Believes nobody: the verifier of a process that has no API for callers with tokens.
struct Nobody;

#[derive(Debug, Error)]
#[error("this process verifies no tokens")]
struct NoTokens;

/// Lets in nobody.
pub(super) fn admission() -> Admission {
    Admission { verifier: Arc::new(Nobody), self_service: false, apps: None, cleaner: None }
}

#[async_trait]
impl Verifier for Nobody {
    async fn verify(&self, _token: &str) -> Result<Verified, TokenRefused> {
        Err(TokenRefused::Unknown(Arc::new(NoTokens)))
    }
}
