//! `policy-server-asg-syncer`: security groups.

use std::{sync::Arc, time::Duration};

use policy_store::PolicyStore;
use tokio_util::sync::CancellationToken;

use super::{
    RunError, beside,
    members::Members,
    open,
    platform::{self, Services},
};
use crate::{
    asg::{
        self, DatabaseLead, Leadership, Locket, SecurityGroupSource, Syncer, SyncerSettings,
        syncer::OnFailure,
    },
    cloud_controller::{SecurityGroups, SecurityGroupsSettings},
    config::{AsgLeader, AsgSyncer},
    metrics::{Metrics, dropsonde::Origin},
};

/// How long a lead by a row in the database lasts: as long as one by Locket.
const LEAD: Duration = Duration::from_secs(15);

/// A list of thousands of groups takes Cloud Controller a while.
const PAGE_TIMEOUT: Duration = Duration::from_secs(120);

/// The shortest time between two looks; without any, Cloud Controller would be asked all the time.
const BREATH: Duration = Duration::from_secs(1);

/// Runs until `shutdown`.
pub async fn run(config: AsgSyncer, shutdown: CancellationToken) -> Result<(), RunError> {
    let store = open(&config.database, beside(AsgSyncer::TAG_LENGTH, true), &shutdown).await?;
    let metrics = Metrics::to_metron(Origin::AsgSyncer, &config.metron_address).await?;
    let lead = leadership(&config, &store).await?;
    let syncer = syncer(&config, &metrics, &store, OnFailure::End)?;
    let mut members = Members::default();
    members.start("the syncer of security groups", |stop| async move {
        Ok(asg::run(syncer, &*lead, stop).await?)
    });
    let ended = members.run(shutdown).await;
    store.close().await;
    Ok(ended?)
}

/// The right to sync, which one process at a time has.
pub(super) async fn leadership(
    config: &AsgSyncer,
    store: &Arc<dyn PolicyStore>,
) -> Result<Box<dyn Leadership>, RunError> {
    Ok(match &config.leader {
        AsgLeader::Locket(settings) => Box::new(Locket::connect(settings.clone()).await?),
        AsgLeader::Database { owner } => {
            Box::new(DatabaseLead::new(store.clone(), owner.clone(), LEAD))
        }
    })
}

/// A syncer that has not looked yet.
pub(super) fn syncer(
    config: &AsgSyncer,
    metrics: &Metrics,
    store: &Arc<dyn PolicyStore>,
    on_failure: OnFailure,
) -> Result<Syncer, RunError> {
    let interval = config.poll_interval.max(BREATH);
    tracing::info!(
        name: "starting-asg-syncer", { interval = interval.as_secs() }, "Syncing security groups."
    );
    let settings = SyncerSettings { interval, unstable_for: config.retry_deadline, on_failure };
    let source = source(config, metrics)?;
    let store = metrics.telling_of(store.clone());
    Ok(Syncer::new(source, store, Arc::new(metrics.clone()), settings))
}

fn source(config: &AsgSyncer, metrics: &Metrics) -> Result<Arc<dyn SecurityGroupSource>, RunError> {
    let services = Services::of(&config.platform, metrics)?;
    let settings = SecurityGroupsSettings {
        internal_url: config.cc_internal_url.clone(),
        page_timeout: PAGE_TIMEOUT,
        timeout: config.platform.timeout,
    };
    let internal = platform::client(&config.cc_internal_tls)?;
    Ok(Arc::new(SecurityGroups::new(settings, services.cloud_controller, internal)))
}
