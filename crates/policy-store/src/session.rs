use std::{net::Ipv4Addr, time::Duration};

use async_trait::async_trait;
use policy::{Lease, Policy, Revision, SecurityGroup, Tag, TagLength, TaggedPolicy, Version};

use crate::{
    AssignedTag, AuditEntry, AuditQuery, Change, Filter, NumberedGroup, StoreError,
    row::{GroupReceiptRow, HeardRow, ReceiptRow},
};

/// A database, as far as it differs from the others: how transactions begin, and what one can do.
///
/// What the store *decides* stands above this line, once (`store`); what it takes to *do* it in one
/// dialect stands below. Whatever takes a list takes any number in a fixed number of statements.
#[async_trait]
pub(crate) trait Backend: Send + Sync + 'static {
    type Session: Session;

    /// A transaction that is alone among writers, on this server and all others, from here on: it
    /// holds the lock of the row of `policies_info`, which the peer takes first, too
    /// (spec/policy-server.md §9.3). It sees everything committed before.
    async fn write(&self) -> Result<Self::Session, StoreError>;

    /// A transaction that sees one instant and changes nothing.
    async fn read(&self) -> Result<Self::Session, StoreError>;

    /// A session without a transaction, for what is one statement anyway. There is nothing to commit.
    async fn alone(&self, purpose: Purpose) -> Result<Self::Session, StoreError>;

    /// See [`PolicyStore::hint`](crate::PolicyStore::hint).
    async fn hint(&self);

    /// Whether the database answers.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Closes all connections, once those in use are given back.
    async fn close(&self);

    /// How many connections are open.
    fn connections(&self) -> u32;
}

/// What a session without a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Reading,
    Writing,
}

/// One transaction. Dropping it before [`commit`](Session::commit), at whatever moment, undoes it,
/// neither blocks, nor leaves a connection in the pool that is of no use.
#[async_trait]
pub(crate) trait Session: Send {
    async fn commit(self) -> Result<(), StoreError>;

    // === revisions ===

    async fn position(&mut self) -> Result<Position, StoreError>;

    /// Takes `count` revisions.
    async fn advance(&mut self, count: u64) -> Result<(), StoreError>;

    /// Forgets the log up to `revision`.
    async fn compact(&mut self, revision: Revision) -> Result<(), StoreError>;

    /// Moves the time of the last update of policies to `micros` since 1970, or just beyond what it
    /// is, and notes that the move was ours.
    async fn touch(&mut self, micros: i64) -> Result<(), StoreError>;

    /// Notes the last move as ours, without moving anything.
    async fn explain(&mut self) -> Result<(), StoreError>;

    /// Gives the database's life another name. What cells have confirmed was in the one before.
    async fn renew_life(&mut self) -> Result<(), StoreError>;

    async fn log(&mut self, changes: &[(Revision, Change)]) -> Result<(), StoreError>;

    /// The changes after `since`, in order.
    async fn logged(&mut self, since: Revision) -> Result<Vec<(Revision, Change)>, StoreError>;

    // === policies ===

    async fn select(&mut self, filter: &Filter) -> Result<Vec<TaggedPolicy>, StoreError>;

    /// Those of `policies` that exist, each once. Destinations are matched by app, protocol, start
    /// and end; the column `port` follows from these.
    async fn find(&mut self, policies: &[&Policy]) -> Result<Vec<Found>, StoreError>;

    /// Adds policies that do not exist, of apps that have their tags.
    async fn insert(&mut self, policies: &[TaggedPolicy]) -> Result<(), StoreError>;

    /// Removes policies, and destinations that are then nobody's.
    async fn remove(&mut self, found: &[Found]) -> Result<(), StoreError>;

    // === tags ===

    /// Makes the tags if there are none at all.
    async fn seed(&mut self, length: TagLength) -> Result<(), StoreError>;

    /// The tags in use, ordered.
    async fn tags(&mut self) -> Result<Vec<AssignedTag>, StoreError>;

    /// The tags that `ids` have.
    async fn tags_of(&mut self, ids: &[&str]) -> Result<Vec<AssignedTag>, StoreError>;

    /// The lowest tags that are nobody's and not quarantined.
    async fn free_tags(&mut self, limit: usize) -> Result<Vec<Tag>, StoreError>;

    /// Gives tags that are nobody's, and ends their quarantine.
    async fn give_tags(&mut self, given: &[(Tag, &str)], kind: &str) -> Result<(), StoreError>;

    /// Frees those of `tags` that are neither a source nor a destination any more; returns them with
    /// their last owners.
    async fn release_tags(&mut self, tags: &[Tag]) -> Result<Vec<(Tag, String)>, StoreError>;

    // === quarantine ===

    /// The quarantined tags whose last owners are `ids`, and that are nobody's: an older server, which
    /// knows of no quarantine, may have given one away.
    async fn quarantined_of(&mut self, ids: &[&str]) -> Result<Vec<(Tag, String)>, StoreError>;

    /// Quarantines tags, also those that an older server took out of quarantine.
    async fn quarantine(
        &mut self,
        released: &[(Tag, String)],
        at: Revision,
    ) -> Result<(), StoreError>;

    /// Takes back what servers reported that have not done so for `lifetime`, and frees the tags released
    /// at a revision before the lowest that the others have confirmed, or all if none says; returns how
    /// many.
    async fn end_quarantine(&mut self, lifetime: Duration) -> Result<usize, StoreError>;

    async fn count_quarantined(&mut self) -> Result<usize, StoreError>;

    /// Notes what the cells of `server` have confirmed (`None`: it has none that says), now by the
    /// database's clock; no cell can have confirmed more than there is. Returns whether
    /// [`end_quarantine`](Self::end_quarantine) would find anything to do.
    async fn report_server(
        &mut self,
        server: &str,
        confirmed: Option<Revision>,
        lifetime: Duration,
    ) -> Result<bool, StoreError>;

    /// Notes that a server took leave, by giving it another name, which begins with `left:`.
    async fn leave_server(&mut self, server: &str) -> Result<(), StoreError>;

    /// Whether a server has not reported for `silent_for` and has not taken leave.
    async fn is_server_lost(&mut self, silent_for: Duration) -> Result<bool, StoreError>;

    /// Forgets servers that have not reported for `silent_for`.
    async fn forget_servers(&mut self, silent_for: Duration) -> Result<(), StoreError>;

    /// What the cells of each server have confirmed, where they say.
    async fn confirmed(&mut self) -> Result<Vec<Revision>, StoreError>;

    // === receipts ===

    /// Writes receipts of different cells, unless there are later ones.
    async fn put_receipts(
        &mut self,
        server: &str,
        receipts: &[ReceiptRow],
    ) -> Result<(), StoreError>;

    async fn receipts(&mut self) -> Result<Vec<HeardRow>, StoreError>;

    async fn forget_receipts(&mut self, silent_for: Duration) -> Result<u64, StoreError>;

    /// Writes receipts of different cells, unless there are later ones.
    async fn put_group_receipts(&mut self, receipts: &[GroupReceiptRow]) -> Result<(), StoreError>;

    async fn group_receipts(&mut self) -> Result<Vec<GroupReceiptRow>, StoreError>;

    async fn forget_group_receipts(&mut self, silent_for: Duration) -> Result<u64, StoreError>;

    // === leases ===

    async fn leases(&mut self) -> Result<Vec<HeldLease>, StoreError>;

    async fn insert_lease(&mut self, lease: &Lease, renewed_at: i64) -> Result<(), StoreError>;

    async fn remove_lease(&mut self, underlay_ip: Ipv4Addr) -> Result<(), StoreError>;

    async fn renew_lease(
        &mut self,
        underlay_ip: Ipv4Addr,
        renewed_at: i64,
    ) -> Result<(), StoreError>;

    /// Takes a lease off the list, or back onto it.
    async fn set_lapsed(&mut self, underlay_ip: Ipv4Addr, lapsed: bool) -> Result<(), StoreError>;

    // === security groups ===

    /// Whether anybody has said which there are.
    async fn are_groups_known(&mut self) -> Result<bool, StoreError>;

    /// Notes that somebody has.
    async fn note_groups_known(&mut self) -> Result<(), StoreError>;

    async fn security_groups(&mut self) -> Result<Vec<NumberedGroup>, StoreError>;

    /// Adds groups, in this order, or replaces those of the same guid, which keep their number.
    async fn put_security_groups(&mut self, groups: &[&SecurityGroup]) -> Result<(), StoreError>;

    async fn remove_security_groups(&mut self, guids: &[&str]) -> Result<(), StoreError>;

    // === audit and leadership ===

    async fn append_audit(&mut self, entries: &[AuditEntry]) -> Result<(), StoreError>;

    /// Newest first, with their numbers.
    async fn audit(&mut self, query: &AuditQuery) -> Result<Vec<(u64, AuditEntry)>, StoreError>;

    /// See [`LeadershipStore::lead`](crate::LeadershipStore::lead).
    async fn lead(
        &mut self,
        group: &str,
        owner: &str,
        lifetime: Duration,
    ) -> Result<bool, StoreError>;

    async fn resign(&mut self, group: &str, owner: &str) -> Result<(), StoreError>;
}

/// Where the database stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub version: Version,
    /// The log has been forgotten up to here.
    pub compacted: Revision,
    /// Whether somebody who takes no revisions has changed policies: the time of the last update is
    /// another than the one we left.
    pub foreign: bool,
    /// When policies were last created or deleted, in microseconds since 1970.
    pub last_updated: i64,
}

/// A policy that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub id: i64,
    pub destination_id: i64,
    pub tagged: TaggedPolicy,
}

/// A lease, on the list or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldLease {
    pub lease: Lease,
    /// Seconds since 1970.
    pub renewed_at: i64,
    pub lapsed: bool,
}
