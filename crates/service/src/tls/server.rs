use std::{path::PathBuf, sync::Arc};

use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};

use super::{HTTP2, Identity, TlsError, read_bundle, trust};

/// What a listener shows, and whom it lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// What callers are shown.
    pub identity: Identity,
    /// The bundle of authorities one of which must have signed the caller's certificate; `None` lets
    /// callers in who show none. Chain, validity and the clientAuth purpose are verified, names are
    /// not (spec/policy-server.md §13).
    pub clients: Option<PathBuf>,
}

impl Server {
    /// The settings, from the files as they are now.
    pub fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let Self { identity, clients } = self;
        let (chain, key) = identity.read()?;
        let builder = ServerConfig::builder();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                trust(&mut roots, path, &read_bundle(path)?)?;
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots));
                let verifier = verifier.build().map_err(TlsError::ClientVerifier)?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let pair = |source| TlsError::Pair { path: identity.certificate.clone(), source };
        let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
        config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Every file the settings are made of.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let Identity { certificate, key } = &self.identity;
        [certificate, key].into_iter().chain(&self.clients).cloned().collect()
    }
}
