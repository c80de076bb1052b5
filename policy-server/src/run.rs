use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use policy::TagLength;
use policy_store::{Options, StoreError, StoreUrl};
use serde::Serialize;
use service::tls::TlsError;
use thiserror::Error;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Listeners,
    auth::{LocalVerifier, SigningError},
    callers::Admission,
    cleaner,
    data_dir::{self, DataDir, FileError, Readers},
    metrics::{
        Metrics,
        dropsonde::{DropsondeError, Origin, emitter::Emitter},
    },
    pki::{self, PkiError},
    quarantine,
    receipts::Receipts,
    router,
    server::Server,
    snapshot::feed::{self, Feeder},
};

/// How often leases are looked over for those that nobody renews any more.
const LAPSE_EVERY: Duration = Duration::from_secs(10);

/// Why a server does not start, or stops.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each text says what the variant means")]
pub enum RunError {
    #[error("preparing the data directory")]
    DataDir(#[from] FileError),
    #[error("preparing certificates")]
    Pki(#[from] PkiError),
    #[error("preparing the key that signs tokens")]
    Signing(#[from] SigningError),
    #[error("preparing the internal API's listener")]
    Tls(#[from] TlsError),
    #[error("opening the database")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Dropsonde(#[from] DropsondeError),
    #[error("following changes in the background")]
    Background(#[source] JoinError),
    #[error("asking a listener for its address")]
    Address(#[source] io::Error),
}

/// Contents of `addresses.json`.
#[derive(Serialize)]
struct Addresses {
    external: String,
    internal: String,
}

/// Runs an embedded server until `shutdown`, then lets requests in flight end. Polls that are held
/// end at once.
pub async fn run(
    config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let Config { data_dir, database, internal_names, lease_pool, callers, api, metron_address } =
        config;
    let Listeners { external, internal } = listeners;
    let external_address = external.local_addr().map_err(RunError::Address)?;
    let internal_address = internal.local_addr().map_err(RunError::Address)?;

    data_dir.create()?;
    let _taken = data_dir.take()?;
    // Whoever waits for the file must not find the one of an earlier run.
    data_dir::remove(&data_dir.addresses())?;
    let names = pki::server_names(internal_address.ip(), &internal_names);
    let files = pki::ensure(&data_dir.pki(), &names)?;
    let tls = service::tls::mutual_server(&files.authority, &files.certificate, &files.key)?;
    let local = LocalVerifier::load_or_make(&data_dir)?;
    let Admission { verifier, self_service, apps, cleaner } =
        callers.map_or_else(|| Admission::local(local), Admission::of);

    let tag_length = TagLength::DEFAULT;
    let url = database.unwrap_or_else(|| StoreUrl::Sqlite(data_dir.database()));
    let store = policy_store::open(&url, &Options { tag_length, ..Options::default() }).await?;
    let metrics = match metron_address {
        Some(address) => Metrics::to_metron(Origin::PolicyServer, &address).await?,
        None => Metrics::new(),
    };
    let store = metrics.telling_of(store);
    let (feed, feeder) = feed::start(store.clone(), tag_length).await?;
    let emitter = Emitter::start(metrics.clone(), feed.clone(), store.clone());
    let server = Arc::new(Server {
        store: store.clone(),
        feed,
        receipts: Receipts::new(),
        verifier,
        self_service,
        apps,
        cleaner,
        tag_length,
        lease_pool,
        metrics,
        started: Instant::now(),
        shutdown: shutdown.clone(),
    });

    let addresses = Addresses {
        external: format!("http://{}", reachable(external_address)),
        internal: format!("https://{}", reachable(internal_address)),
    };
    announce(&data_dir, &addresses)?;
    let mut background = tokio::spawn(background(feeder, emitter, server.clone()));
    let mut serving = pin!(async {
        tokio::join!(
            service::serve::http(
                external,
                router::external(server.clone(), &api),
                shutdown.clone()
            ),
            service::serve::https(internal, tls, router::internal(server, &api), shutdown.clone()),
        )
    });
    let failure = tokio::select! {
        _ = &mut serving => None,
        // Without its feeder a server would tell cells the same for ever; better none at all.
        ended = &mut background => {
            shutdown.cancel();
            serving.await;
            ended.err()
        }
    };
    data_dir::remove(&data_dir.addresses())?;
    // Only now: requests in flight may still wait for the snapshot to hold what they wrote.
    background.abort();
    store.close().await;
    tracing::info!("Stopped.");
    failure.map_or(Ok(()), |failure| Err(RunError::Background(failure)))
}

fn announce(data_dir: &DataDir, addresses: &Addresses) -> Result<(), FileError> {
    let json = gocompat::json::to_string(addresses);
    data_dir::write(&data_dir.addresses(), &json, Readers::Owner)?;
    tracing::info!(
        external.url = addresses.external,
        internal.url = addresses.internal,
        "Listening."
    );
    Ok(())
}

/// An address that can be connected to from here, where a listener may have "all of them".
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// What goes on beside the listeners: feeding the snapshot, telling metron, letting leases lapse.
async fn background(feeder: Feeder, emitter: Emitter, server: Arc<Server>) {
    let expiry = server.lease_pool.expiry();
    let lapsing = async {
        let mut tick = tokio::time::interval(LAPSE_EVERY);
        loop {
            tick.tick().await;
            match server.store.lapse_leases(expiry, SystemTime::now()).await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "Leases lapsed."),
                Err(error) => {
                    let error = service::log::chain(&error);
                    tracing::error!(error, "Could not look over the leases.");
                }
            }
        }
    };
    tokio::join!(
        feeder.run(),
        emitter.run(),
        lapsing,
        quarantine::report(server.clone()),
        cleaner::run(server.clone()),
    );
}
