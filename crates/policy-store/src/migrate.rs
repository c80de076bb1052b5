//! The one run in a deployment that may make or change every table (spec/policy-server.md §9.2).

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::{Options, Schema, StoreError, StoreUrl, open};

/// How long is waited between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Brings the whole schema up to date and makes the tags, whatever `options` say of the schema; what
/// is up to date already is left as it is.
///
/// What fails is tried again every second, whatever it is, since the database may be on its way up or
/// not have been made yet. When `deadline` has passed, the last failure is the source of the error.
pub async fn migrate(
    url: &StoreUrl,
    options: &Options,
    deadline: Duration,
) -> Result<(), StoreError> {
    let options = Options { schema: Schema::Whole, ..*options };
    let mut last = None;
    let trying = async {
        while let Err(error) = once(url, &options).await {
            last = Some(Box::new(error));
            sleep(PAUSE).await;
        }
    };
    let done = timeout(deadline, trying).await;
    done.map_err(|_| StoreError::NotMigratedInTime { store: url.to_string(), source: last })
}

async fn once(url: &StoreUrl, options: &Options) -> Result<(), StoreError> {
    open(url, options).await?.close().await;
    Ok(())
}
