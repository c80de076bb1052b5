//! `policy-server --embedded`: both APIs on one machine, with certificates and a signing key made at
//! the first start.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use policy::TagLength;
use policy_store::{Options, StoreUrl};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{
    RunError, cells,
    members::Members,
    open_alone,
    prepared::{Parts, clean_up},
};
use crate::{
    Listeners,
    auth::LocalVerifier,
    callers::Admission,
    config::Embedded,
    data_dir::{self, DataDir, FileError, Readers},
    metrics::{Metrics, dropsonde::Origin},
    pki, router,
};

/// Contents of `addresses.json`.
#[derive(Serialize)]
struct Addresses {
    external: String,
    internal: String,
}

/// Runs an embedded server until `shutdown`, then lets requests in flight end. Polls that are held
/// end at once.
pub async fn run(
    config: Embedded,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let Embedded { data_dir, database, internal_names, lease_pool, callers, api, metron_address } =
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
    let tls = service::tls::mutual_server(&files.authority, &files.certificate, &files.key);
    let tls = tls.map_err(RunError::MutualTls)?;
    let local = LocalVerifier::load_or_make(&data_dir)?;

    let tag_length = TagLength::DEFAULT;
    let url = database.unwrap_or_else(|| StoreUrl::Sqlite(data_dir.database()));
    let options = Options { tag_length, ..Options::default() };
    // Who waits for a database must not be waited for.
    let opened = shutdown.run_until_cancelled(open_alone(&url, &options)).await;
    let store = opened.ok_or(RunError::Stopped)??;
    let metrics = match metron_address {
        Some(address) => Metrics::to_metron(Origin::PolicyServer, &address).await?,
        None => Metrics::new(),
    };
    let parts = Parts {
        store: store.clone(),
        metrics,
        admission: callers.map_or_else(|| Admission::local(local), Admission::of),
        tag_length,
        lease_pool,
        shutdown: shutdown.clone(),
    };
    let mut members = Members::default();
    let server = parts.prepare().await?.keep_current(&mut members);
    cells::look_after(&server, &mut members);
    members.serve("the external API", external, router::external(server.clone(), &api));
    let routes = router::internal(server.clone(), &api);
    members.serve_tls("the internal API", internal, tls.into(), routes);
    clean_up(&server, &mut members);
    let addresses = Addresses {
        external: format!("http://{}", reachable(external_address)),
        internal: format!("https://{}", reachable(internal_address)),
    };
    announce(&data_dir, &addresses)?;
    let ended = members.run(shutdown).await;
    data_dir::remove(&data_dir.addresses())?;
    store.close().await;
    Ok(ended?)
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
