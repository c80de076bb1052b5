//! `policy-server` of 2016: both APIs in one process, which makes its tables itself
//! (spec/policy-server.md §12.3, §14.2).

use std::sync::Arc;

use policy_store::{ConnectError, Options, Schema, StoreError};
use service::{log::LevelSwitch, tls};
use tokio_util::sync::CancellationToken;

use super::{
    RunError, cells, internal, listening, members::Members, open, platform, prepared::Parts,
};
use crate::{
    auth::{CheckToken, Uaa},
    callers::Admission,
    config::{Address, Legacy},
    listeners::listen,
    metrics::{Metrics, dropsonde::Origin},
    router,
};

/// Runs until `shutdown`.
pub async fn run(
    config: Legacy,
    switch: LevelSwitch,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let options = Options {
        tag_length: config.tag_length,
        tag_quarantine: config.tag_quarantine,
        schema: Schema::Whole,
        ..Options::default()
    };
    let store = open(&config.database, options, &shutdown).await.map_err(in_words_of_2016)?;
    let live = tls::follow(config.tls.clone()).map_err(RunError::MutualTls)?;
    let metrics = Metrics::to_metron(Origin::PolicyServer, &config.metron_address).await?;
    let parts = Parts {
        store: store.clone(),
        admission: admission(&config, &metrics)?,
        metrics,
        tag_length: config.tag_length,
        lease_pool: config.lease_pool,
        shutdown: shutdown.clone(),
    };
    let mut members = Members::default();
    let server = parts.prepare().await?.keep_current(&mut members);
    cells::look_after(&server, &mut members);
    let Address { host, port } = &config.listen;
    let listener = listen("external API", config.listen.as_pair()).await?;
    tracing::info!(
        name: "starting external server",
        { listen.address = host.as_str(), listen.port = port }, "Listening for callers."
    );
    let routes = router::external(server.clone(), &config.api);
    members.serve("the external API", listener, routes);
    internal::serve(&mut members, &server, &config.internal_listen, live, &config.api).await?;
    if let Some(address) = &config.debug {
        listening::debug(&mut members, address, &server, switch).await?;
    }
    let ended = members.run(shutdown).await;
    store.close().await;
    Ok(ended?)
}

/// UAA is asked about every token; only administrators may anything, so nobody else is asked.
fn admission(config: &Legacy, metrics: &Metrics) -> Result<Admission, RunError> {
    let uaa = config.uaa.clone().ok_or(RunError::NoUaa)?;
    let http = platform::client(&config.uaa_tls)?;
    let verifier = CheckToken::new(Arc::new(Uaa::new(uaa, http, metrics.clone())));
    Ok(Admission { verifier: Arc::new(verifier), self_service: false, apps: None, cleaner: None })
}

fn in_words_of_2016(error: RunError) -> RunError {
    match error {
        RunError::Connect(StoreError::Connect(error @ ConnectError::Deadline { .. })) => {
            RunError::ConnectOf2016(error)
        }
        other => other,
    }
}
