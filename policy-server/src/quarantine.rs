//! Tells the database what this server's cells enforce, so that tags given back become free when no
//! cell takes them for their last owner's any more (design §2.4). It is also this server's sign of life:
//! while it is given, other servers take the cells whose polls are held here for heard.

use std::{sync::Arc, time::Duration};

use policy_store::StoreError;
use tokio::time::{MissedTickBehavior, interval};

use crate::server::Server;

/// How often.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Reports until dropped.
pub(crate) async fn report(server: Arc<Server>) {
    let mut tick = interval(REPORT_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tick.tick().await;
        match say(&server).await {
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
async fn say(server: &Server) -> Result<usize, StoreError> {
    server.receipts.read(&*server.store).await?;
    let report = server.receipts.confirmed(&server.feed.snapshot());
    server.store.report_cells(server.receipts.server(), report).await
}
