use async_trait::async_trait;
use policy::{SecurityGroup, Version};

use crate::StoreError;

/// A security group with the number by which lists are paged; it keeps it as long as it exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberedGroup {
    /// Starts at 1.
    pub id: u64,
    /// The group.
    pub group: SecurityGroup,
}

/// The security groups Cloud Controller told us of (spec/policy-server.md §7).
#[async_trait]
pub trait SecurityGroupStore: Send + Sync {
    /// Makes `groups` the security groups, in one transaction that writes only what differs. Takes a
    /// revision only if something does, or if these are the first that anybody tells of.
    async fn replace_security_groups(
        &self,
        groups: &[SecurityGroup],
    ) -> Result<Version, StoreError>;

    /// Takes a revision for security groups that somebody changed who takes none: an older syncer on the
    /// same database. Whoever finds them other than at `seen` calls this; only if no revision after
    /// `seen` tells of a change is one taken, so that of several who find it out one tells all.
    async fn announce_security_groups(&self, seen: &Version) -> Result<Version, StoreError>;

    /// All of them, ordered by number; `None` while nobody has read them from Cloud Controller: then that
    /// there are none does not mean that there shall be none.
    async fn security_groups(&self) -> Result<Option<Vec<NumberedGroup>>, StoreError>;
}
