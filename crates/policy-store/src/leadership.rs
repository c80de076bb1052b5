use std::time::Duration;

use async_trait::async_trait;

use crate::StoreError;

/// One leader among several processes that share the database. Times are the database's, so that
/// the clocks of hosts do not matter.
#[async_trait]
pub trait LeadershipStore: Send + Sync {
    /// Whether `owner` leads `group` from now on for `lifetime`: it led already, or nobody did, or
    /// the leader has let its time pass.
    async fn lead(&self, group: &str, owner: &str, lifetime: Duration) -> Result<bool, StoreError>;

    /// Gives the lead back, if `owner` has it.
    async fn resign(&self, group: &str, owner: &str) -> Result<(), StoreError>;
}
