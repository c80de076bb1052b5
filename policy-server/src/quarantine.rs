//! Tells the database what this server's cells enforce, so that tags given back become free when no
//! cell takes them for their last owner's any more (design §2.4). It is also this server's sign of life:
//! while it is given, other servers take the cells whose polls are held here for heard.

use std::{sync::Arc, time::Duration};

use policy_store::{PolicyStore, StoreError};
use tokio::time::{MissedTickBehavior, interval};

use crate::{receipts::Receipts, server::Server, snapshot::feed::Feed};

/// How often.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Reports until dropped.
pub(crate) async fn report(server: Arc<Server>) {
    let mut tick = interval(REPORT_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tick.tick().await;
        let Server { receipts, feed, store, .. } = &*server;
        match say(receipts, feed, &**store).await {
            Ok(freed) => {
                failing = false;
                if freed > 0 {
                    tracing::info!(tags.count = freed, "Tags are free again, as every cell knows.");
                }
            }
            Err(error) if !failing => {
                failing = true;
                let error = service::log::chain(&error);
                tracing::error!(error, "Cannot tell what cells enforce; tags stay in quarantine.");
            }
            Err(_) => {}
        }
    }
}

/// Says it once. Who does not know what cells said to servers that are gone cannot vouch for anybody,
/// and says nothing.
async fn say(
    receipts: &Receipts,
    feed: &Feed,
    store: &dyn PolicyStore,
) -> Result<usize, StoreError> {
    receipts.read(store).await?;
    let report = receipts.confirmed(&feed.snapshot());
    store.report_cells(receipts.server(), report).await
}

#[cfg(test)]
mod tests;
