//! TLS, both ways: what a listener shows and whom it lets in ([`Server`], kept up to date with its
//! files by [`follow`]), and how this process tells whom it calls ([`Outbound`]).
//!
//! TLS 1.2 and 1.3 (spec/policy-server.md §13). The texts of errors are those operators of the
//! existing system search their logs for.

mod outbound;
mod reload;
mod server;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};
use thiserror::Error;

pub use outbound::Outbound;
pub use reload::{Live, follow};
pub use server::Server;

/// HTTP/2's name in the handshake (ALPN).
pub(crate) const HTTP2: &[u8] = b"h2";

/// Certificates or keys that cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// Our own certificate or key is missing, or is no PEM of that kind.
    #[error("unable to load cert or key: {what} in {}", path.display())]
    Identity {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: pem::Error,
    },
    /// Certificate and key do not belong together, or are of no use.
    #[error(
        "unable to load cert or key: pairing the certificate in {} with the key in {}",
        identity.certificate.display(), identity.key.display()
    )]
    Pair {
        /// Both.
        identity: Identity,
        /// What is wrong.
        #[source]
        source: rustls::Error,
    },
    /// A bundle of authorities that cannot be read.
    #[error("failed read ca cert file: {}", path.display())]
    AuthoritiesUnread {
        /// The bundle.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A bundle that is no PEM, or has no certificate in it.
    #[error("Unable to load caCert from {}", path.display())]
    AuthoritiesUnclear {
        /// The bundle.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: pem::Error,
    },
    /// A certificate of a bundle that cannot be trusted as an authority.
    #[error("Unable to load caCert from {}", path.display())]
    Authority {
        /// The bundle.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rustls::Error,
    },
    /// No client could ever be verified.
    #[error("building the verifier of client certificates")]
    ClientVerifier(#[source] rustls::server::VerifierBuilderError),
    /// There is no chance to make keys of.
    #[error("making the keys of session tickets")]
    Tickets(#[source] rustls::Error),
    /// The authorities this machine trusts cannot be had.
    #[error("loading the authorities this system trusts")]
    System(#[source] rustls::Error),
}

/// Who this process is: a certificate chain and its key, in two PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The private key of the leaf.
    pub key: PathBuf,
}

/// The settings of a listener that shows `certificate` and demands a client certificate signed by
/// `authority`, as the files are now.
pub fn mutual_server(
    authority: &Path,
    certificate: &Path,
    key: &Path,
) -> Result<Arc<ServerConfig>, TlsError> {
    let identity = Identity { certificate: certificate.to_owned(), key: key.to_owned() };
    Server { identity, clients: Some(authority.to_owned()) }.load()
}

impl Identity {
    fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let Self { certificate, key } = self;
        let fault = |what, path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::Identity { what, path, source }
        };
        let chain = std::fs::read(certificate)
            .map_err(pem::Error::Io)
            .and_then(|bytes| certificates(&bytes))
            .map_err(fault("the certificate", certificate))?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(fault("the private key", key))?;
        Ok((chain, key))
    }
}

/// Adds the authorities of the bundle at `path`, which must have one.
fn trust(roots: &mut RootCertStore, path: &Path, bundle: &[u8]) -> Result<(), TlsError> {
    let unclear = |source| TlsError::AuthoritiesUnclear { path: path.to_owned(), source };
    for root in certificates(bundle).map_err(unclear)? {
        roots.add(root).map_err(|source| TlsError::Authority { path: path.to_owned(), source })?;
    }
    Ok(())
}

fn read_bundle(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path)
        .map_err(|source| TlsError::AuthoritiesUnread { path: path.to_owned(), source })
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?;
    if found.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(found) }
}
