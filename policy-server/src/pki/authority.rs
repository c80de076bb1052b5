use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use time::{Duration, OffsetDateTime};

use super::{BACKDATED, PkiError, RENEW_BEFORE, inspect::Facts};
use crate::data_dir::{self, Readers};

const NAME: &str = "netman-ca";
const LIFETIME: Duration = Duration::days(3650);

/// Who signs the certificates.
pub(super) struct Authority {
    pub pem: String,
    pub issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// The authority of `dir`. One that exists is never replaced silently: cells trust it.
    pub(super) fn load_or_make(dir: &Path, now: OffsetDateTime) -> Result<Self, PkiError> {
        match data_dir::read(&dir.join("ca.crt"))? {
            Some(pem) => Self::load(dir, pem, now),
            None => Self::make(dir, now),
        }
    }

    fn load(dir: &Path, pem: String, now: OffsetDateTime) -> Result<Self, PkiError> {
        let path = dir.join("ca.key");
        let unusable = || PkiError::AuthorityKey { path: path.clone() };
        let key = data_dir::read(&path)?.ok_or_else(unusable)?;
        let key = KeyPair::from_pem(&key).map_err(|_| unusable())?;
        let facts = Facts::of(&pem).ok_or_else(unusable)?;
        if !facts.belongs_to(&key) {
            return Err(unusable());
        }
        if facts.ends - now < RENEW_BEFORE {
            return Err(PkiError::AuthorityEnds { path: dir.join("ca.crt") });
        }
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(failed)?;
        Ok(Self { pem, issuer })
    }

    fn make(dir: &Path, now: OffsetDateTime) -> Result<Self, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, NAME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = now - BACKDATED;
        params.not_after = now + LIFETIME;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let pem = params.self_signed(&key).map_err(failed)?.pem();
        // The key first: a certificate without its key would be the end of the line.
        data_dir::write(&dir.join("ca.key"), &key.serialize_pem(), Readers::Owner)?;
        data_dir::write(&dir.join("ca.crt"), &pem, Readers::All)?;
        tracing::info!("Made a certificate authority.");
        Ok(Self { pem, issuer: Issuer::new(params, key) })
    }
}

fn failed(source: rcgen::Error) -> PkiError {
    PkiError::Make { what: "the certificate authority", source }
}
