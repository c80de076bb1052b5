use policy::{Lease, Revision, TaggedPolicy, Version};

use crate::{AssignedTag, NumberedGroup};

/// One thing that happened at a revision. A revision may consist of many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A policy was added.
    PolicyAdded(TaggedPolicy),
    /// A policy was removed; the tags are those it had.
    PolicyRemoved(TaggedPolicy),
    /// A lease came onto the list.
    LeaseAdded(Lease),
    /// A lease left the list: released, lapsed, or given to another cell.
    LeaseRemoved(Lease),
    /// The security groups are others than before; the store says which.
    SecurityGroupsReplaced,
    /// Somebody asked for a tag and got one ([`tag_for`](crate::PolicyStore::tag_for)). Of tags that
    /// policies give out or give back, the policies tell.
    TagGiven(AssignedTag),
}

/// Answer of [`changes_since`](crate::PolicyStore::changes_since).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// Everything after the revision asked about, in order. Empty when nothing happened.
    Log(Vec<(Revision, Change)>),
    /// The log does not reach back that far, or the database began another life: take the whole
    /// [`State`].
    Forgotten,
}

/// Everything, as of `version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The life and the last revision included.
    pub version: Version,
    /// Every policy.
    pub policies: Vec<TaggedPolicy>,
    /// Every lease on the list.
    pub leases: Vec<Lease>,
    /// Every security group, ordered by number; `None` while nobody has told of any.
    pub security_groups: Option<Vec<NumberedGroup>>,
    /// Changes the log still keeps, oldest first; after `compacted`, up to `version`.
    pub log: Vec<(Revision, Change)>,
    /// What happened up to here is forgotten.
    pub compacted: Revision,
}
