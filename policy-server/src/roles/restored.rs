//! `policy-server restored`: says that a database was restored from a backup, so that its revisions are
//! not mistaken for those it had before (design §2.3).

use policy::Version;
use policy_store::{Options, Schema, StoreUrl};

use super::{RunError, beside, open_alone};
use crate::config::{Database, PolicyServer};

/// Begins another life of the database that a file of a `policy-server` names. Servers that run on it
/// notice by themselves.
pub async fn of_file(config: &PolicyServer) -> Result<Version, RunError> {
    let (database, options) = match config {
        PolicyServer::External(config) => {
            (&config.database, beside(config.tag_length, config.tag_quarantine))
        }
        PolicyServer::Legacy(config) => {
            let options = Options { schema: Schema::Whole, ..Options::default() };
            (&config.database, Options { tag_length: config.tag_length, ..options })
        }
    };
    is_there(&database.url)?;
    let Database { url, connections, timeout } = database;
    let options = Options { connections: *connections, patience: *timeout, ..options };
    let store = open_alone(url, &options).await?;
    let version = store.begin_another_life(None).await;
    store.close().await;
    Ok(version?)
}

/// The same, of the database of an embedded server.
pub async fn of_embedded(url: &StoreUrl) -> Result<Version, RunError> {
    is_there(url)?;
    let store = open_alone(url, &Options::default()).await?;
    let version = store.begin_another_life(None).await;
    store.close().await;
    Ok(version?)
}

/// Opening would make one, and nobody would notice that it is the wrong one.
fn is_there(url: &StoreUrl) -> Result<(), RunError> {
    match url {
        StoreUrl::Sqlite(path) if !path.exists() => Err(RunError::NoDatabase(path.clone())),
        _ => Ok(()),
    }
}
