//! `migrate-db`: makes the tables, or brings them up to date, and ends (spec/policy-server.md §9.2).

use std::time::Duration;

use policy_store::{Options, Schema, StoreError};
use tokio::time::{sleep, timeout};

use crate::config::{Database, External};

/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Tries until it is done, even if there is no such database yet. Whether it was in time; how long that
/// may be is in the configuration.
pub async fn run(config: &External) -> bool {
    let options = Options {
        tag_length: config.tag_length,
        schema: Schema::Whole,
        tag_quarantine: config.tag_quarantine,
        connections: config.database.connections,
        ..Options::default()
    };
    timeout(config.migration_timeout, until_done(&config.database, &options)).await.is_ok()
}

async fn until_done(database: &Database, options: &Options) {
    while let Err(error) = migrate(database, options).await {
        let error = service::log::chain(&error);
        tracing::error!(error, database.url = %database.url, "Could not migrate; trying again.");
        sleep(PAUSE).await;
    }
    tracing::info!(database.url = %database.url, "Migrated.");
}

async fn migrate(database: &Database, options: &Options) -> Result<(), StoreError> {
    policy_store::open(&database.url, options).await?.close().await;
    Ok(())
}
