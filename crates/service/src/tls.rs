//! Mutual TLS for listeners: TLS 1.2 and 1.3, a client certificate of our own authority required.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::WebPkiClientVerifier,
};
use thiserror::Error;

/// HTTP/2's name in the handshake (ALPN).
pub(crate) const HTTP2: &[u8] = b"h2";

/// Certificates or keys a listener cannot be built from.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file that is missing, or holds no PEM of the right kind.
    #[error("reading {what} from {}", path.display())]
    Read {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: pem::Error,
    },
    /// A certificate of the bundle that cannot be trusted as an authority.
    #[error("trusting the authorities in {}", path.display())]
    Authority {
        /// The bundle.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rustls::Error,
    },
    /// No client could ever be verified.
    #[error("building the verifier of client certificates")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    /// Certificate and key do not belong together, or are of no use.
    #[error("pairing the certificate in {} with its key", path.display())]
    Pair {
        /// The certificate.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: rustls::Error,
    },
}

/// The settings of a listener that shows `certificate` and demands a client certificate signed by
/// `authority`: chain, validity and the clientAuth purpose are verified, names are not
/// (spec/policy-server.md §13).
pub fn mutual_server(
    authority: &Path,
    certificate: &Path,
    key: &Path,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in certificates("certificate authorities", authority)? {
        roots
            .add(root)
            .map_err(|source| TlsError::Authority { path: authority.to_owned(), source })?;
    }
    let verifier =
        WebPkiClientVerifier::builder(Arc::new(roots)).build().map_err(TlsError::Verifier)?;
    let chain = certificates("a certificate", certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Read {
        what: "a private key",
        path: key.to_owned(),
        source,
    })?;
    let mut config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|source| TlsError::Pair { path: certificate.to_owned(), source })?;
    config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::Read { what, path: path.to_owned(), source };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if found.is_empty() { Err(unreadable(pem::Error::NoItemsFound)) } else { Ok(found) }
}
