use std::{path::PathBuf, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{GetRandomFailed, aws_lc_rs::Ticketer},
    server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier},
    ticketer::TicketRotator,
};

use super::{HTTP2, Identity, TlsError, read_bundle, trust};

/// How long a key makes tickets; it accepts them for as long again.
const TICKET_KEY_SECONDS: u32 = 30 * 60;

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
        let pair = |source| TlsError::Pair { identity: identity.clone(), source };
        let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
        config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
        remember_by_tickets(&mut config)?;
        Ok(Arc::new(config))
    }

    /// Every file the settings are made of.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let Identity { certificate, key } = &self.identity;
        [certificate, key].into_iter().chain(&self.clients).cloned().collect()
    }
}

/// Callers who come back show a ticket instead of proving again who they are, which costs a fraction of
/// a handshake. What they proved is in the ticket, so that it is remembered of any number of them
/// without memory of ours. Tickets end with these settings, and thus when an authority or the
/// certificate is replaced; otherwise within twice [`TICKET_KEY_SECONDS`], and so long an expired
/// certificate may outlive itself.
fn remember_by_tickets(config: &mut ServerConfig) -> Result<(), TlsError> {
    let make = || {
        let ticketer = Ticketer::new().map_err(|_| GetRandomFailed)?;
        Ok(Box::new(Shared(ticketer)) as Box<dyn ProducesTickets>)
    };
    let tickets = TicketRotator::new(TICKET_KEY_SECONDS, make).map_err(TlsError::Tickets)?;
    config.ticketer = Arc::new(tickets);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // One is enough for who keeps one connection.
    config.send_tls13_tickets = 1;
    Ok(())
}

/// A maker of tickets with one key for as long as it is asked.
#[derive(Debug)]
struct Shared(Arc<dyn ProducesTickets>);

impl ProducesTickets for Shared {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        2 * TICKET_KEY_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(cipher)
    }
}
