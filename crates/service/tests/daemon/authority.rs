use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use service::tls::Identity;

/// Signs certificates; each is a world of its own.
pub(crate) struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test-ca");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key in PEM.
    pub(crate) fn issue(
        &self,
        names: &[&str],
        purpose: ExtendedKeyUsagePurpose,
    ) -> (String, String) {
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "policy-agent");
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    pub(crate) fn client(&self, purpose: ExtendedKeyUsagePurpose) -> reqwest::Identity {
        let (certificate, key) = self.issue(&[], purpose);
        reqwest::Identity::from_pem(format!("{certificate}{key}").as_bytes()).unwrap()
    }
}

/// Files in a directory of their own.
pub(crate) struct Files(tempfile::TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        service::install_crypto_provider();
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A server's certificate for 127.0.0.1 and its key.
    pub(crate) fn server(&self, authority: &Authority) -> Identity {
        let (certificate, key) =
            authority.issue(&["127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth);
        let certificate = self.write("server.crt", &certificate);
        Identity { certificate, key: self.write("server.key", &key) }
    }
}
