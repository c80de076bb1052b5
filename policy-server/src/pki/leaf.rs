use std::{collections::BTreeSet, path::Path};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use time::{Duration, OffsetDateTime};

use super::{
    BACKDATED, PkiError, RENEW_BEFORE,
    authority::Authority,
    inspect::{self, Facts},
};
use crate::data_dir::{self, Readers};

const LIFETIME: Duration = Duration::days(730);

/// What a certificate is for.
pub(super) enum Purpose<'a> {
    /// The internal API, under these names.
    Server { names: &'a BTreeSet<String> },
    /// The daemons of a cell.
    Agent,
}

impl Purpose<'_> {
    fn file(&self) -> &'static str {
        match self {
            Self::Server { .. } => "server",
            Self::Agent => "agent",
        }
    }

    fn common_name(&self) -> &'static str {
        match self {
            Self::Server { .. } => "policy-server.service.cf.internal",
            Self::Agent => "policy-agent",
        }
    }

    fn usage(&self) -> ExtendedKeyUsagePurpose {
        match self {
            Self::Server { .. } => ExtendedKeyUsagePurpose::ServerAuth,
            Self::Agent => ExtendedKeyUsagePurpose::ClientAuth,
        }
    }

    fn names(&self) -> BTreeSet<String> {
        match self {
            Self::Server { names } => (*names).clone(),
            Self::Agent => BTreeSet::new(),
        }
    }
}

/// Issues the certificate unless the one in `dir` will do.
pub(super) fn ensure(
    dir: &Path,
    authority: &Authority,
    purpose: &Purpose<'_>,
    now: OffsetDateTime,
) -> Result<(), PkiError> {
    let stem = purpose.file();
    let (certificate_file, key_file) =
        (dir.join(format!("{stem}.crt")), dir.join(format!("{stem}.key")));
    let (certificate, key) = (data_dir::read(&certificate_file)?, data_dir::read(&key_file)?);
    let wanted = purpose.names();
    let reason = match (certificate, key) {
        (Some(certificate), Some(key)) => fault(&certificate, &key, authority, &wanted, now),
        _ => Some("there was none"),
    };
    let Some(reason) = reason else { return Ok(()) };
    // A crash between the two writes leaves a pair that does not belong together, which the next
    // start finds and replaces.
    let (certificate, key) = issue(authority, purpose, now)
        .map_err(|source| PkiError::Make { what: "a certificate", source })?;
    data_dir::write(&key_file, &key, Readers::Owner)?;
    data_dir::write(&certificate_file, &certificate, Readers::All)?;
    tracing::info!(certificate.name = stem, reason, "Issued a certificate.");
    Ok(())
}

/// Why a certificate must be replaced.
fn fault(
    certificate: &str,
    key: &str,
    authority: &Authority,
    wanted: &BTreeSet<String>,
    now: OffsetDateTime,
) -> Option<&'static str> {
    let (Some(facts), Ok(key)) = (Facts::of(certificate), KeyPair::from_pem(key)) else {
        return Some("it was unreadable");
    };
    if !facts.belongs_to(&key) {
        Some("its key did not belong to it")
    } else if !inspect::signed_by(certificate, &authority.pem) {
        Some("another authority had signed it")
    } else if facts.ends - now < RENEW_BEFORE {
        Some("it would have ended soon")
    } else if !wanted.is_subset(&facts.names) {
        Some("it lacked a name")
    } else {
        None
    }
}

fn issue(
    authority: &Authority,
    purpose: &Purpose<'_>,
    now: OffsetDateTime,
) -> Result<(String, String), rcgen::Error> {
    let names: Vec<String> = purpose.names().into_iter().collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, purpose.common_name());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose.usage()];
    params.use_authority_key_identifier_extension = true;
    params.not_before = now - BACKDATED;
    params.not_after = now + LIFETIME;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.signed_by(&key, &authority.issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}
