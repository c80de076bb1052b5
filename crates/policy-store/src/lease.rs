use std::{
    net::Ipv4Addr,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use policy::{Lease, Version};
use thiserror::Error;

use crate::{LeaseKind, LeasePool, StoreError, error::Transient};

/// Which cell has which block of overlay addresses, by the rules of the silk controller
/// (spec/cell.md §E.2). Times are the caller's, so that tests can make a week pass.
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// The leases on the list, in no particular order.
    async fn leases(&self) -> Result<Vec<Lease>, StoreError>;

    /// How many of them were renewed within `age`, or acquired: cells that were there not long ago.
    async fn leases_renewed_within(
        &self,
        age: Duration,
        now: SystemTime,
    ) -> Result<usize, StoreError>;

    /// The lease of the cell at `underlay_ip`.
    ///
    /// A lease it has already is returned as it is, not renewed, if `pool` can lend it; one outside
    /// `pool` is given up for a new one. A new lease is a block of which nobody holds an address,
    /// drawn at random; when there is none, the block whose lease expired longest ago. Returned with
    /// the version that holds it.
    async fn acquire_lease(
        &self,
        pool: &LeasePool,
        underlay_ip: Ipv4Addr,
        kind: LeaseKind,
        now: SystemTime,
    ) -> Result<(Lease, Version), LeaseError>;

    /// Confirms that the cell still uses `lease`. An unknown lease is taken in as given, so that
    /// cells re-register what they run after the database is lost. A lease that had lapsed comes
    /// back onto the list.
    async fn renew_lease(&self, lease: &Lease, now: SystemTime) -> Result<Version, LeaseError>;

    /// Gives the lease of `underlay_ip` back. Releasing none is success.
    async fn release_lease(&self, underlay_ip: Ipv4Addr) -> Result<Version, StoreError>;

    /// Takes leases off the list that nobody renewed for `expiry`. They stay their cells' until
    /// their block is needed. Takes a revision only if some lapsed; returns how many did.
    async fn lapse_leases(&self, expiry: Duration, now: SystemTime) -> Result<usize, StoreError>;
}

/// Why a cell does not get, or keep, a lease.
#[derive(Debug, Error)]
pub enum LeaseError {
    /// Every block is lent and none has expired.
    #[error("no lease available")]
    NoneAvailable,
    /// The cell holds another lease than the one it renews.
    #[error("lease mismatch")]
    Mismatch,
    /// Another cell holds an address of that block, or the hardware address.
    #[error("the block {} is lent to another cell", .0.overlay_subnet)]
    Taken(Lease),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Transient for LeaseError {
    fn asks_for_another_attempt(&self) -> bool {
        matches!(self, Self::Store(error) if error.asks_for_another_attempt())
    }
}
