//! `policy-server`: the external API.

use service::{log::LevelSwitch, tls};
use tokio_util::sync::CancellationToken;

use super::{
    RunError, beside, listening,
    members::Members,
    open, platform,
    prepared::{Parts, clean_up},
};
use crate::{
    callers::Admission,
    config::{Address, External},
    listeners::listen,
    metrics::{Metrics, dropsonde::Origin},
    router,
    server::Server,
};
use policy_store::LeasePool;
use std::sync::Arc;

/// Runs until `shutdown`.
pub async fn run(
    config: External,
    switch: LevelSwitch,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let store =
        open(&config.database, beside(config.tag_length, config.tag_quarantine), &shutdown).await?;
    let metrics = Metrics::to_metron(Origin::PolicyServer, &config.metron_address).await?;
    let admission = Admission::of(platform::callers(&config, &metrics)?);
    let parts = Parts {
        store: store.clone(),
        metrics,
        admission,
        tag_length: config.tag_length,
        lease_pool: LeasePool::default(),
        shutdown: shutdown.clone(),
    };
    let mut members = Members::default();
    let server = parts.prepare().await?.keep_current(&mut members);
    serve(&mut members, &server, &config).await?;
    clean_up(&server, &mut members);
    listening::debug(&mut members, &config.debug, &server, switch).await?;
    let ended = members.run(shutdown).await;
    store.close().await;
    Ok(ended?)
}

/// Serves the external API from now on.
pub(super) async fn serve(
    members: &mut Members,
    server: &Arc<Server>,
    config: &External,
) -> Result<(), RunError> {
    let Address { host, port } = &config.listen;
    let listener = listen("external API", config.listen.as_pair()).await?;
    let routes = router::external(server.clone(), &config.api);
    let identity = config.tls.clone().map(|identity| tls::Server { identity, clients: None });
    let tls = identity.map(tls::follow).transpose().map_err(RunError::Tls)?;
    tracing::info!(
        name: "starting external server",
        { listen.address = host.as_str(), listen.port = port }, "Listening for callers."
    );
    match tls {
        None => members.serve("the external API", listener, routes),
        Some(tls) => members.serve_tls("the external API", listener, tls, routes),
    }
    Ok(())
}
