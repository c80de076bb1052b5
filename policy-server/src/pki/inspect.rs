use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use rcgen::{KeyPair, PublicKeyData};
use time::OffsetDateTime;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    pem::Pem,
};

/// What we need to know of a certificate to keep or replace it.
pub(super) struct Facts {
    pub ends: OffsetDateTime,
    pub names: BTreeSet<String>,
    public_key: Vec<u8>,
}

impl Facts {
    /// `None` if the text holds no readable certificate.
    pub(super) fn of(pem: &str) -> Option<Self> {
        read(pem, |certificate| Self {
            ends: certificate.validity().not_after.to_datetime(),
            names: names(certificate),
            public_key: certificate.public_key().raw.to_vec(),
        })
    }

    pub(super) fn belongs_to(&self, key: &KeyPair) -> bool {
        self.public_key == key.subject_public_key_info()
    }
}

/// Whether the authority signed the certificate.
pub(super) fn signed_by(pem: &str, authority_pem: &str) -> bool {
    let signed = read(authority_pem, |authority| {
        read(pem, |certificate| {
            certificate.issuer() == authority.subject()
                && certificate.verify_signature(Some(authority.public_key())).is_ok()
        })
    });
    signed.flatten() == Some(true)
}

fn read<T>(pem: &str, look: impl FnOnce(&X509Certificate<'_>) -> T) -> Option<T> {
    let pem = Pem::iter_from_buffer(pem.as_bytes()).next()?.ok()?;
    pem.parse_x509().ok().map(|certificate| look(&certificate))
}

fn names(certificate: &X509Certificate<'_>) -> BTreeSet<String> {
    certificate
        .extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(names),
            _ => None,
        })
        .flat_map(|names| names.general_names.iter().filter_map(name))
        .collect()
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|ip| Ipv4Addr::from(ip).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|ip| Ipv6Addr::from(ip).to_string()),
        },
        _ => None,
    }
}
