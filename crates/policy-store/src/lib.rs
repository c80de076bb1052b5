//! Where policies, tags and leases live: one trait per concern, one implementation per database,
//! and one conformance suite that tells all of them the same story (`tests/conformance`).
//!
//! Start reading at [`PolicyStore`] for the promises, then [`open`] for how a URL becomes a store.
//! `store` holds what every database does the same way, in terms of `session`: the few things a
//! transaction can do. Each backend writes its own SQL for those, since the dialects differ exactly
//! where it hurts. The tables are those of cf-networking, with our own beside them
//! (spec/policy-server.md §9.1, design §2.1).

mod actor;
mod audit;
mod cells;
mod cf_schema;
mod change;
mod connecting;
mod error;
mod filter;
mod group_receipts;
mod leadership;
mod lease;
mod metered;
mod migrate;
mod mysql;
mod open;
mod pool;
mod pooled;
mod postgres;
mod receipts;
mod row;
mod security_groups;
mod server;
mod session;
mod sqlite;
mod store;
mod tag;

use async_trait::async_trait;
use policy::{Policy, Tag, TaggedPolicy, Version};

pub use actor::Actor;
pub use audit::{Action, AuditEntry, AuditQuery, AuditTrail};
pub use cells::{CellsReport, TagQuarantine};
pub use change::{Change, Changes, State};
pub use connecting::ConnectError;
pub use error::StoreError;
pub use filter::Filter;
pub use group_receipts::{GroupReceiptStore, StoredGroupReceipt};
pub use leadership::LeadershipStore;
pub use lease::{LeaseError, LeaseStore};
pub use metered::{StoreFigures, StorePeaks};
pub use migrate::migrate;
pub use open::{Options, Schema, StoreUrl, StoreUrlError, open};
pub use pool::{InvalidPool, LeaseKind, LeasePool};
pub use receipts::{HeardReceipt, ReceiptStore, StoredReceipt};
pub use security_groups::{NumberedGroup, SecurityGroupStore};
pub use server::{Connections, DatabaseServer, DatabaseTls};
pub use tag::AssignedTag;

/// Policies, the tags of those they speak of, and what changed when.
///
/// Every change takes the next [`Revision`](policy::Revision) inside the transaction that makes it,
/// so whoever has seen a revision has seen everything up to it. The methods may be dropped while
/// they run: what they were changing then happened wholly or not at all.
#[async_trait]
pub trait PolicyStore:
    AuditTrail
    + GroupReceiptStore
    + LeadershipStore
    + LeaseStore
    + ReceiptStore
    + SecurityGroupStore
    + TagQuarantine
{
    /// Adds all of `policies` or, on any error, none. Adding a policy that exists is success.
    ///
    /// Apps that have no tag get the lowest free ones, in the order in which the policies name
    /// them, source first. Returns the version that holds the change: a new revision, or the
    /// current one if every policy existed. The time of the last update moves in either case,
    /// unless `policies` is empty (spec/policy-server.md §5.2, §9.3). Requests that come at the same
    /// time may share a transaction; each has a revision and an audit entry of its own.
    async fn create(&self, policies: &[Policy], actor: &Actor) -> Result<Version, StoreError>;

    /// Removes all of `policies` or, on any error, none. Removing one that is missing is success;
    /// protocol and both ports must be equal, a range is not cut.
    ///
    /// Tags of apps that no policy names any more are free again, at once or after the quarantine of
    /// [`TagQuarantine`]. Returns like
    /// [`create`](Self::create).
    async fn delete(&self, policies: &[Policy], actor: &Actor) -> Result<Version, StoreError>;

    /// The policies `filter` selects, in no particular order.
    async fn policies(&self, filter: &Filter) -> Result<Vec<TaggedPolicy>, StoreError>;

    /// The tags in use, ordered by tag.
    async fn tags(&self) -> Result<Vec<AssignedTag>, StoreError>;

    /// The tag of `id`, which is a `kind` (`router`, say); given out on first use and kept until
    /// `id` takes part in a policy that is removed. Giving takes a revision; the time of the last
    /// update stays, as no policy changes.
    async fn tag_for(&self, id: &str, kind: &str) -> Result<Tag, StoreError>;

    /// When policies were last created or deleted, in nanoseconds since 1970: a marker that moves
    /// with every such call, never backwards (spec/policy-server.md §5.2).
    async fn last_updated(&self) -> Result<i64, StoreError>;

    /// What [`last_updated`](Self::last_updated) was when this store last looked at the database, which
    /// every [`changes_since`](Self::changes_since) does; `None` before the first look.
    fn last_updated_seen(&self) -> Option<i64>;

    /// The life of the database and the last revision taken.
    async fn version(&self) -> Result<Version, StoreError>;

    /// What happened after `since`, or that the log cannot tell any more. Cheap when nothing did.
    async fn changes_since(&self, since: &Version) -> Result<Changes, StoreError>;

    /// Everything, as of one instant.
    async fn state(&self) -> Result<State, StoreError>;

    /// Begins another life of the database if it is still in that of `seen`, and its revision is lower:
    /// after a restore, it fell (design §2.3). `None`: whatever life it is in. The log is forgotten, and
    /// what cells confirmed counts no more. Returns the version since.
    async fn begin_another_life(&self, seen: Option<&Version>) -> Result<Version, StoreError>;

    /// Returns when somebody may have changed something: at once if that was since the last call, which
    /// only one caller should make. A hint and nothing else: PostgreSQL tells of most changes, and other
    /// databases of none, so that this never returns.
    async fn hint(&self);

    /// Whether the database answers.
    async fn ping(&self) -> Result<(), StoreError>;

    /// How the database was used so far.
    fn figures(&self) -> StoreFigures;

    /// The most there was at once since the last call, so that one caller should be the only one.
    fn peaks(&self) -> StorePeaks;

    /// Waits for what is in flight and closes all connections, but for a database that does not answer
    /// only for some seconds. Every later call fails.
    async fn close(&self);
}
