//! Certificates of an authority made for one test.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Files of an authority, of a server's certificate for loopback, and of a client's; gone when
/// dropped.
pub struct Certificates {
    dir: tempfile::TempDir,
}

impl Certificates {
    /// New ones.
    ///
    /// # Panics
    /// If they cannot be made or written, which leaves a test nothing to do.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a test can make a directory");
        let key = KeyPair::generate().expect("keys can be made");
        let mut params = CertificateParams::new([]).expect("no names are valid names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = params.self_signed(&key).expect("an authority can sign itself");
        write(&dir.path().join("ca.crt"), &authority.pem());
        let issuer = Issuer::new(params, key);
        for (name, names, usage) in [
            ("server", &["127.0.0.1", "localhost"][..], ExtendedKeyUsagePurpose::ServerAuth),
            ("client", &[], ExtendedKeyUsagePurpose::ClientAuth),
        ] {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            let key = KeyPair::generate().expect("keys can be made");
            let mut params = CertificateParams::new(names).expect("these names are valid");
            params.extended_key_usages = vec![usage];
            let certificate = params.signed_by(&key, &issuer).expect("the authority can sign");
            write(&dir.path().join(format!("{name}.crt")), &certificate.pem());
            write(&dir.path().join(format!("{name}.key")), &key.serialize_pem());
        }
        Self { dir }
    }

    /// `ca.crt`, `server.crt`, `server.key`, `client.crt` or `client.key`.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// Its contents.
    pub(crate) fn pem(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).expect("it was written")
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

fn write(path: &Path, pem: &str) {
    fs::write(path, pem).expect("a test can write to its directory");
}
