//! Measuring what the store is asked, by the names the existing system gives its operations
//! (spec/policy-server.md §11).

use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use policy::{Lease, Policy, SecurityGroup, Tag, TaggedPolicy, Version};
use policy_store::{
    Actor, AssignedTag, AuditEntry, AuditQuery, AuditTrail, CellsReport, Changes, Filter,
    GroupReceiptStore, HeardReceipt, LeadershipStore, LeaseError, LeaseKind, LeasePool, LeaseStore,
    NumberedGroup, PolicyStore, ReceiptStore, SecurityGroupStore, State, StoreError, StoreFigures,
    StorePeaks, StoredGroupReceipt, StoredReceipt, TagQuarantine,
};

use super::{Metrics, Outcome};
use crate::snapshot::Subject;

/// What is measured. Lists are answered from the snapshot, which is then what is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    All,
    ByGuids,
    CheckDatabase,
    Create,
    CreateTag,
    Delete,
    LastUpdated,
    Tags,
    SecurityGroupsBySpaceGuids,
    SecurityGroupsReplace,
}

/// A store whose operations are told of.
pub(crate) struct Told {
    store: Arc<dyn PolicyStore>,
    metrics: Metrics,
}

impl Operation {
    /// Listing what `filter` selects.
    pub(crate) fn of(filter: &Filter) -> Self {
        match filter {
            Filter::All => Self::All,
            _ => Self::ByGuids,
        }
    }

    /// Listing what `subject` asks for.
    pub(crate) fn about(subject: &Subject) -> Self {
        match subject {
            Subject::Everything => Self::All,
            Subject::Apps(_) => Self::ByGuids,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::All => "StoreAll",
            Self::ByGuids => "StoreByGuids",
            Self::CheckDatabase => "StoreCheckDatabase",
            Self::Create => "StoreCreate",
            Self::CreateTag => "StoreCreateTag",
            Self::Delete => "StoreDelete",
            Self::LastUpdated => "StoreLastUpdated",
            Self::Tags => "StoreTags",
            Self::SecurityGroupsBySpaceGuids => "SecurityGroupsStoreBySpaceGuids",
            Self::SecurityGroupsReplace => "SecurityGroupsStoreReplace",
        }
    }
}

impl Metrics {
    /// `store`, with its operations told of.
    pub(crate) fn telling_of(&self, store: Arc<dyn PolicyStore>) -> Arc<dyn PolicyStore> {
        Arc::new(Told { store, metrics: self.clone() })
    }

    /// The result of `work`, told of as `operation`.
    pub(crate) async fn operation<T, E>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let began = Instant::now();
        let result = work.await;
        self.operated(operation, Outcome::of(&result), began.elapsed());
        result
    }

    /// What `look` finds in the snapshot, told of as `operation`.
    pub(crate) fn lookup<T>(&self, operation: Operation, look: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let found = look();
        self.operated(operation, Outcome::Succeeded, began.elapsed());
        found
    }
}

#[async_trait]
impl PolicyStore for Told {
    async fn create(&self, policies: &[Policy], actor: &Actor) -> Result<Version, StoreError> {
        self.metrics.operation(Operation::Create, self.store.create(policies, actor)).await
    }

    async fn delete(&self, policies: &[Policy], actor: &Actor) -> Result<Version, StoreError> {
        self.metrics.operation(Operation::Delete, self.store.delete(policies, actor)).await
    }

    async fn policies(&self, filter: &Filter) -> Result<Vec<TaggedPolicy>, StoreError> {
        self.metrics.operation(Operation::of(filter), self.store.policies(filter)).await
    }

    async fn tags(&self) -> Result<Vec<AssignedTag>, StoreError> {
        self.metrics.operation(Operation::Tags, self.store.tags()).await
    }

    async fn tag_for(&self, id: &str, kind: &str) -> Result<Tag, StoreError> {
        self.metrics.operation(Operation::CreateTag, self.store.tag_for(id, kind)).await
    }

    async fn last_updated(&self) -> Result<i64, StoreError> {
        self.metrics.operation(Operation::LastUpdated, self.store.last_updated()).await
    }

    fn last_updated_seen(&self) -> Option<i64> {
        self.store.last_updated_seen()
    }

    async fn version(&self) -> Result<Version, StoreError> {
        self.store.version().await
    }

    async fn changes_since(&self, since: &Version) -> Result<Changes, StoreError> {
        self.store.changes_since(since).await
    }

    async fn state(&self) -> Result<State, StoreError> {
        self.store.state().await
    }

    async fn begin_another_life(&self, seen: Option<&Version>) -> Result<Version, StoreError> {
        self.store.begin_another_life(seen).await
    }

    async fn hint(&self) {
        self.store.hint().await;
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.metrics.operation(Operation::CheckDatabase, self.store.ping()).await
    }

    fn figures(&self) -> StoreFigures {
        self.store.figures()
    }

    fn peaks(&self) -> StorePeaks {
        self.store.peaks()
    }

    async fn close(&self) {
        self.store.close().await;
    }
}

#[async_trait]
impl SecurityGroupStore for Told {
    async fn replace_security_groups(
        &self,
        groups: &[SecurityGroup],
    ) -> Result<Version, StoreError> {
        let replacing = self.store.replace_security_groups(groups);
        self.metrics.operation(Operation::SecurityGroupsReplace, replacing).await
    }

    /// Not told of: it is the snapshot that asks, and not on anybody's behalf.
    async fn announce_security_groups(&self, seen: &Version) -> Result<Version, StoreError> {
        self.store.announce_security_groups(seen).await
    }

    async fn security_groups(&self) -> Result<Option<Vec<NumberedGroup>>, StoreError> {
        self.store.security_groups().await
    }
}

#[async_trait]
impl LeaseStore for Told {
    async fn leases(&self) -> Result<Vec<Lease>, StoreError> {
        self.store.leases().await
    }

    async fn acquire_lease(
        &self,
        pool: &LeasePool,
        underlay_ip: Ipv4Addr,
        kind: LeaseKind,
        now: SystemTime,
    ) -> Result<(Lease, Version), LeaseError> {
        self.store.acquire_lease(pool, underlay_ip, kind, now).await
    }

    async fn renew_lease(&self, lease: &Lease, now: SystemTime) -> Result<Version, LeaseError> {
        self.store.renew_lease(lease, now).await
    }

    async fn release_lease(&self, underlay_ip: Ipv4Addr) -> Result<Version, StoreError> {
        self.store.release_lease(underlay_ip).await
    }

    async fn leases_renewed_within(
        &self,
        age: Duration,
        now: SystemTime,
    ) -> Result<usize, StoreError> {
        self.store.leases_renewed_within(age, now).await
    }

    async fn lapse_leases(&self, expiry: Duration, now: SystemTime) -> Result<usize, StoreError> {
        self.store.lapse_leases(expiry, now).await
    }
}

#[async_trait]
impl AuditTrail for Told {
    async fn audit(&self, query: &AuditQuery) -> Result<Vec<(u64, AuditEntry)>, StoreError> {
        self.store.audit(query).await
    }
}

#[async_trait]
impl TagQuarantine for Told {
    async fn report_cells(&self, server: &str, report: CellsReport) -> Result<usize, StoreError> {
        self.store.report_cells(server, report).await
    }

    async fn take_leave(&self, server: &str) -> Result<(), StoreError> {
        self.store.take_leave(server).await
    }

    async fn is_server_lost(&self, silent_for: Duration) -> Result<bool, StoreError> {
        self.store.is_server_lost(silent_for).await
    }

    async fn quarantined_tags(&self) -> Result<usize, StoreError> {
        self.store.quarantined_tags().await
    }
}

#[async_trait]
impl ReceiptStore for Told {
    async fn write_receipts(
        &self,
        server: &str,
        receipts: &[StoredReceipt],
    ) -> Result<(), StoreError> {
        self.store.write_receipts(server, receipts).await
    }

    async fn receipts(&self) -> Result<Vec<HeardReceipt>, StoreError> {
        self.store.receipts().await
    }

    async fn forget_receipts(&self, silent_for: Duration) -> Result<u64, StoreError> {
        self.store.forget_receipts(silent_for).await
    }
}

#[async_trait]
impl GroupReceiptStore for Told {
    async fn write_group_receipts(
        &self,
        receipts: &[StoredGroupReceipt],
    ) -> Result<(), StoreError> {
        self.store.write_group_receipts(receipts).await
    }

    async fn group_receipts(&self) -> Result<Vec<StoredGroupReceipt>, StoreError> {
        self.store.group_receipts().await
    }

    async fn forget_group_receipts(&self, silent_for: Duration) -> Result<u64, StoreError> {
        self.store.forget_group_receipts(silent_for).await
    }
}

#[async_trait]
impl LeadershipStore for Told {
    async fn lead(&self, group: &str, owner: &str, lifetime: Duration) -> Result<bool, StoreError> {
        self.store.lead(group, owner, lifetime).await
    }

    async fn resign(&self, group: &str, owner: &str) -> Result<(), StoreError> {
        self.store.resign(group, owner).await
    }
}

#[cfg(test)]
mod tests {
    use platform::metron::{Event, Metron};
    use policy_store::{Options, StoreUrl};

    use super::*;
    use crate::metrics::dropsonde::Origin;

    /// A store that tells metron, in a directory of its own.
    async fn told(dir: &tempfile::TempDir, metron: &Metron) -> Arc<dyn PolicyStore> {
        let url = StoreUrl::Sqlite(dir.path().join("netman.db"));
        let store = policy_store::open(&url, &Options::default()).await.unwrap();
        let address = metron.address().to_string();
        Metrics::to_metron(Origin::PolicyServer, &address).await.unwrap().telling_of(store)
    }

    /// What the operations of the existing system do, done.
    async fn do_everything(store: &dyn PolicyStore) -> Vec<Result<(), StoreError>> {
        let (policies, nobody) = (["web db tcp 1".to_owned()], Actor::system("test"));
        let policies: Vec<Policy> = policies.iter().map(|text| parsed(text)).collect();
        let apps = [policies[0].source.clone()].into();
        vec![
            store.create(&policies, &nobody).await.map(drop),
            store.policies(&Filter::All).await.map(drop),
            store.policies(&Filter::Touching(apps)).await.map(drop),
            store.delete(&policies, &nobody).await.map(drop),
            store.last_updated().await.map(drop),
            store.tags().await.map(drop),
            store.tag_for("gateway", "router").await.map(drop),
            store.ping().await,
            store.replace_security_groups(&[]).await.map(drop),
        ]
    }

    fn parsed(text: &str) -> Policy {
        let words: Vec<_> = text.split(' ').collect();
        Policy {
            source: words[0].parse().unwrap(),
            destination: words[1].parse().unwrap(),
            protocol: words[2].parse().unwrap(),
            ports: words[3].parse().unwrap(),
        }
    }

    const OPERATIONS: [&str; 9] = [
        "StoreCreate",
        "StoreAll",
        "StoreByGuids",
        "StoreDelete",
        "StoreLastUpdated",
        "StoreTags",
        "StoreCreateTag",
        "StoreCheckDatabase",
        "SecurityGroupsStoreReplace",
    ];

    #[tokio::test]
    async fn each_operation_is_told_of_by_its_name() {
        let (dir, metron) = (tempfile::tempdir().unwrap(), Metron::start().await);
        let store = told(&dir, &metron).await;
        assert!(do_everything(&*store).await.iter().all(Result::is_ok));
        for operation in OPERATIONS {
            let time = metron.hears(&format!("{operation}SuccessTime")).await;
            assert!(matches!(time.event, Event::Value { unit, .. } if unit == "ms"));
        }
        assert_eq!(metron.heard().len(), OPERATIONS.len(), "and of nothing else");
    }

    #[tokio::test]
    async fn a_failure_is_told_of_and_counted() {
        let (dir, metron) = (tempfile::tempdir().unwrap(), Metron::start().await);
        let store = told(&dir, &metron).await;
        store.close().await;
        assert!(do_everything(&*store).await.iter().all(Result::is_err));
        for operation in OPERATIONS {
            let time = metron.hears(&format!("{operation}ErrorTime")).await;
            assert!(matches!(time.event, Event::Value { unit, .. } if unit == "ms"));
            let count = metron.hears(&format!("{operation}Error")).await;
            assert!(matches!(count.event, Event::Count { delta: 1, .. }));
        }
        assert_eq!(metron.heard().len(), 2 * OPERATIONS.len(), "and of nothing else");
    }
}
