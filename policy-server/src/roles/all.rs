//! `policy-server serve --all`: every job in one process, on one database.

use std::{sync::Arc, time::Duration};

use policy_store::PolicyStore;
use service::{log::LevelSwitch, tls};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    RunError, asg_syncer, beside, cells, external, internal, listening,
    members::Members,
    open, platform,
    prepared::{Parts, clean_up},
};
use crate::{
    ApiSettings,
    asg::{self, syncer::OnFailure},
    callers::Admission,
    config::{All, AsgSyncer},
    metrics::{Metrics, dropsonde::Origin},
};

/// How long after it lost the lead a syncer competes for it again.
const AGAIN: Duration = Duration::from_secs(5);

/// Runs until `shutdown`.
pub async fn run(
    config: All,
    switch: LevelSwitch,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let All { external: config, internal: cells, asg_syncer } = config;
    let store =
        open(&config.database, beside(config.tag_length, config.tag_quarantine), &shutdown).await?;
    let live = tls::follow(cells.tls).map_err(RunError::MutualTls)?;
    let metrics = Metrics::to_metron(Origin::PolicyServer, &config.metron_address).await?;
    let admission = Admission::of(platform::callers(&config, &metrics)?);
    let parts = Parts {
        store: store.clone(),
        metrics: metrics.clone(),
        admission,
        tag_length: config.tag_length,
        lease_pool: cells.lease_pool,
        shutdown: shutdown.clone(),
    };
    let mut members = Members::default();
    let server = parts.prepare().await?.keep_current(&mut members);
    cells::look_after(&server, &mut members);
    external::serve(&mut members, &server, &config).await?;
    internal::serve(&mut members, &server, &cells.listen, live, &ApiSettings::default()).await?;
    clean_up(&server, &mut members);
    if let Some(syncing) = asg_syncer {
        sync(&mut members, syncing, metrics, store.clone());
    }
    listening::debug(&mut members, &config.debug, &server, switch).await?;
    listening::health(&mut members, cells.health_check_port, &server).await?;
    let ended = members.run(shutdown).await;
    store.close().await;
    Ok(ended?)
}

/// Syncs for as long as the process lives. What would end a process of its own is told, and the syncer
/// begins again, since others live here.
fn sync(members: &mut Members, config: AsgSyncer, metrics: Metrics, store: Arc<dyn PolicyStore>) {
    members.start("the syncer of security groups", |stop| async move {
        while !stop.is_cancelled() {
            if let Err(error) = try_to_sync(&config, &metrics, &store, stop.clone()).await {
                let error = service::log::chain(&*error);
                tracing::error!(error, "The syncer of security groups ended; it begins again.");
                stop.run_until_cancelled(sleep(AGAIN)).await;
            }
        }
        Ok(())
    });
}

async fn try_to_sync(
    config: &AsgSyncer,
    metrics: &Metrics,
    store: &Arc<dyn PolicyStore>,
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let lead = asg_syncer::leadership(config, store).await?;
    let syncer = asg_syncer::syncer(config, metrics, store, OnFailure::GoOn)?;
    Ok(asg::run(syncer, &*lead, stop).await?)
}
