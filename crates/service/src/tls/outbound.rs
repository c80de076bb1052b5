use std::{path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use rustls_platform_verifier::BuilderVerifierExt;

use super::{Identity, TlsError, read_bundle, trust};

/// How this process tells whom it calls, and says who it is itself (spec/policy-server.md §13).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outbound {
    /// Bundles of authorities; whom any of them signed for is believed. Empty files add nothing, and
    /// when nothing is added those count which this system trusts.
    pub authorities: Vec<PathBuf>,
    /// What is shown to servers that ask.
    pub identity: Option<Identity>,
    /// Whether any server is believed. The authorities' files are not even opened then.
    pub skip_verification: bool,
}

impl Outbound {
    /// The settings for a client, as the files are now. They name no protocol of HTTP, so that
    /// HTTP/1.1 is spoken; `reqwest` takes them by `tls_backend_preconfigured`.
    pub fn client(&self) -> Result<ClientConfig, TlsError> {
        let builder = ClientConfig::builder();
        let roots = self.roots()?;
        let builder = if self.skip_verification {
            let believing = Arc::new(Believing::of(builder.crypto_provider()));
            builder.dangerous().with_custom_certificate_verifier(believing)
        } else if roots.is_empty() {
            builder.with_platform_verifier().map_err(TlsError::System)?
        } else {
            builder.with_root_certificates(roots)
        };
        let Some(identity) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        let (chain, key) = identity.read()?;
        let pair = |source| TlsError::Pair { identity: identity.clone(), source };
        builder.with_client_auth_cert(chain, key).map_err(pair)
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        if self.skip_verification {
            return Ok(roots);
        }
        for path in &self.authorities {
            let bundle = read_bundle(path)?;
            if !bundle.trim_ascii().is_empty() {
                trust(&mut roots, path, &bundle)?;
            }
        }
        Ok(roots)
    }
}

/// Believes any certificate, and still demands that the server holds its key.
#[derive(Debug)]
struct Believing(WebPkiSupportedAlgorithms);

impl Believing {
    fn of(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for Believing {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
