//! What a server does for the cells that poll it, beside answering.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::members::Members;
use crate::{quarantine, receipts::keeper, server::Server};

/// How often leases are looked over for those that nobody renews any more.
const LAPSE_EVERY: Duration = Duration::from_secs(10);

/// Lets leases lapse, keeps what cells say, and tells the database what they enforce.
pub(super) fn look_after(server: &Arc<Server>, members: &mut Members) {
    let keeping = server.clone();
    members.start("the keeper of receipts", |stop| async move {
        keeper::run(keeping, stop).await;
        Ok(())
    });
    members.start_endless("the watch over leases", lapse(server.clone()));
    members.start_endless("the report about cells", quarantine::report(server.clone()));
}

async fn lapse(server: Arc<Server>) {
    let expiry = server.lease_pool.expiry();
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
}
