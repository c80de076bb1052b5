//! `policy-server-internal`: the internal API, for cells.

use std::sync::Arc;

use service::{
    log::LevelSwitch,
    tls::{self, Live},
};
use tokio_util::sync::CancellationToken;

use super::{RunError, beside, cells, listening, members::Members, nobody, open, prepared::Parts};
use crate::{
    ApiSettings,
    config::{Address, Internal},
    listeners::listen,
    metrics::{Metrics, dropsonde::Origin},
    router,
    server::Server,
};

/// Runs until `shutdown`.
pub async fn run(
    config: Internal,
    switch: LevelSwitch,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let store =
        open(&config.database, beside(config.tag_length, config.tag_quarantine), &shutdown).await?;
    let live = tls::follow(config.tls).map_err(RunError::MutualTls)?;
    let metrics = Metrics::to_metron(Origin::PolicyServerInternal, &config.metron_address).await?;
    let parts = Parts {
        store: store.clone(),
        metrics,
        admission: nobody::admission(),
        tag_length: config.tag_length,
        lease_pool: config.lease_pool,
        shutdown: shutdown.clone(),
    };
    let mut members = Members::default();
    let server = parts.prepare().await?.keep_current(&mut members);
    cells::look_after(&server, &mut members);
    serve(&mut members, &server, &config.listen, live, &ApiSettings::default()).await?;
    listening::debug(&mut members, &config.debug, &server, switch).await?;
    listening::health(&mut members, config.health_check_port, &server).await?;
    let ended = members.run(shutdown).await;
    store.close().await;
    Ok(ended?)
}

/// Serves the internal API from now on.
pub(super) async fn serve(
    members: &mut Members,
    server: &Arc<Server>,
    address: &Address,
    tls: Live,
    settings: &ApiSettings,
) -> Result<(), RunError> {
    let Address { host, port } = address;
    let listener = listen("internal API", address.as_pair()).await?;
    tracing::info!(
        name: "starting internal server",
        { listen.address = host.as_str(), listen.port = port }, "Listening for cells."
    );
    let routes = router::internal(server.clone(), settings);
    members.serve_tls("the internal API", listener, tls, routes);
    Ok(())
}
