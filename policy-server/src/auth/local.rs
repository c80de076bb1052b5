//! Tokens of our own: ES256, signed with a key in the data directory. For one machine, where no UAA
//! is at hand.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Identity, TokenRefused, UserGuid, Verified, Verifier};
use crate::data_dir::{self, DataDir, FileError, Readers};

const ISSUER: &str = "netman";
const AUDIENCE: &str = "network-policy";

/// How far clocks may be apart.
const LEEWAY_SECONDS: u64 = 5;

/// What our tokens say.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    scope: Vec<String>,
    iat: u64,
    exp: u64,
}

/// Signs tokens.
pub struct LocalSigner(EncodingKey);

/// Believes what [`LocalSigner`] signed.
pub struct LocalVerifier {
    key: DecodingKey,
    rules: Validation,
}

/// A signing key that cannot be read, made or used.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each text says what the variant means")]
pub enum SigningError {
    #[error("keeping the signing key")]
    File(#[from] FileError),
    #[error("there is no signing key {}", .0.display())]
    NoKey(PathBuf),
    #[error("making a signing key")]
    Make(#[source] rcgen::Error),
    #[error("the signing key is unreadable")]
    Unreadable(#[source] rcgen::Error),
    #[error("using the signing key")]
    Use(#[source] jsonwebtoken::errors::Error),
}

impl LocalSigner {
    /// The signer of a data directory in which a server has been started.
    pub fn load(dir: &DataDir) -> Result<Self, SigningError> {
        let path = private_key(dir);
        let pem = data_dir::read(&path)?.ok_or(SigningError::NoKey(path))?;
        EncodingKey::from_ec_pem(pem.as_bytes()).map(Self).map_err(SigningError::Use)
    }

    /// A token for `subject` with these scopes, valid from now for `lifetime`.
    pub fn sign(
        &self,
        subject: &str,
        scopes: &[String],
        lifetime: Duration,
    ) -> Result<String, SigningError> {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: subject.to_owned(),
            scope: scopes.to_vec(),
            iat: now.as_secs(),
            exp: (now + lifetime).as_secs(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.0)
            .map_err(SigningError::Use)
    }
}

impl LocalVerifier {
    /// The verifier of a data directory; makes the key at the first start.
    pub fn load_or_make(dir: &DataDir) -> Result<Self, SigningError> {
        let key = match data_dir::read(&private_key(dir))? {
            Some(pem) => KeyPair::from_pem(&pem).map_err(SigningError::Unreadable)?,
            None => {
                let key =
                    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(SigningError::Make)?;
                data_dir::write(&private_key(dir), &key.serialize_pem(), Readers::Owner)?;
                key
            }
        };
        let public = key.public_key_pem();
        let public_file = dir.pki().join("token-signing.pub");
        if data_dir::read(&public_file)?.as_ref() != Some(&public) {
            data_dir::write(&public_file, &public, Readers::All)?;
        }
        Self::of_public_key(&public)
    }

    fn of_public_key(pem: &str) -> Result<Self, SigningError> {
        let mut rules = Validation::new(Algorithm::ES256);
        rules.algorithms = vec![Algorithm::ES256];
        rules.set_issuer(&[ISSUER]);
        rules.set_audience(&[AUDIENCE]);
        rules.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        rules.validate_nbf = true;
        rules.leeway = LEEWAY_SECONDS;
        let key = DecodingKey::from_ec_pem(pem.as_bytes()).map_err(SigningError::Use)?;
        Ok(Self { key, rules })
    }
}

#[async_trait]
impl Verifier for LocalVerifier {
    async fn verify(&self, token: &str) -> Result<Verified, TokenRefused> {
        let verified = jsonwebtoken::decode::<Claims>(token, &self.key, &self.rules)
            .map_err(|error| TokenRefused::Invalid(Arc::new(error)))?;
        let Claims { iss: _, aud: _, sub, scope, iat: _, exp } = verified.claims;
        let guid = UserGuid::new(&sub);
        let identity = Identity { subject: sub, guid, client: None, scopes: scope };
        let expires = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(exp));
        Ok(Verified { identity, expires })
    }
}

fn private_key(dir: &DataDir) -> PathBuf {
    dir.pki().join("token-signing.key")
}

#[cfg(test)]
mod tests;
