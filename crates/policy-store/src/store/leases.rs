//! Which cell has which block (spec/cell.md §E.2).

use std::{
    net::Ipv4Addr,
    time::{Duration, SystemTime},
};

use ipnet::Ipv4Net;
use policy::{Lease, Version};
use uuid::Uuid;

use super::{Rules, changes};
use crate::{
    Change, LeaseError, LeaseKind, LeasePool, StoreError,
    session::{HeldLease, Session},
};

/// The leases on the list.
pub(super) async fn list(session: &mut impl Session) -> Result<Vec<Lease>, StoreError> {
    let held = session.leases().await?;
    Ok(held.into_iter().filter(|held| !held.lapsed).map(|held| held.lease).collect())
}

pub(super) async fn acquire(
    session: &mut impl Session,
    rules: &Rules,
    pool: &LeasePool,
    underlay_ip: Ipv4Addr,
    kind: LeaseKind,
    now: SystemTime,
) -> Result<(Lease, Version), LeaseError> {
    let mut held = session.leases().await?;
    let mut changes = Vec::new();
    if let Some(index) = held.iter().position(|held| held.lease.underlay_ip == underlay_ip) {
        if pool.lends(held[index].lease.overlay_subnet) {
            return Ok((held[index].lease, session.position().await?.version));
        }
        let foreign = held.swap_remove(index);
        changes.extend(forget(session, &foreign).await?);
    }
    let taken: Vec<_> = held.iter().map(|held| held.lease.overlay_subnet).collect();
    let subnet = match pool.choose(kind, &taken, draw()) {
        Some(subnet) => subnet,
        None => {
            let expired = oldest_expired(held, pool, kind, now).ok_or(LeaseError::NoneAvailable)?;
            changes.extend(forget(session, &expired).await?);
            expired.lease.overlay_subnet
        }
    };
    let lease = Lease::new(underlay_ip, subnet);
    session.insert_lease(&lease, seconds(now)).await?;
    changes.push(Change::LeaseAdded(lease));
    Ok((lease, changes::take(session, rules, changes).await?))
}

pub(super) async fn renew(
    session: &mut impl Session,
    rules: &Rules,
    lease: &Lease,
    now: SystemTime,
) -> Result<Version, LeaseError> {
    let held = session.leases().await?;
    match held.iter().find(|held| held.lease.underlay_ip == lease.underlay_ip) {
        Some(known) if known.lease != *lease => return Err(LeaseError::Mismatch),
        Some(known) => {
            session.renew_lease(lease.underlay_ip, seconds(now)).await?;
            if !known.lapsed {
                return Ok(session.position().await?.version);
            }
            session.set_lapsed(lease.underlay_ip, false).await?;
        }
        None => {
            let clash = |held: &HeldLease| {
                overlap(held.lease.overlay_subnet, lease.overlay_subnet)
                    || held.lease.overlay_hardware_addr == lease.overlay_hardware_addr
            };
            if held.iter().any(clash) {
                return Err(LeaseError::Taken(*lease));
            }
            session.insert_lease(lease, seconds(now)).await?;
        }
    }
    Ok(changes::take(session, rules, vec![Change::LeaseAdded(*lease)]).await?)
}

pub(super) async fn release(
    session: &mut impl Session,
    rules: &Rules,
    underlay_ip: Ipv4Addr,
) -> Result<Version, StoreError> {
    let held = session.leases().await?;
    let change = match held.iter().find(|held| held.lease.underlay_ip == underlay_ip) {
        Some(held) => forget(session, held).await?,
        None => None,
    };
    match change {
        Some(change) => changes::take(session, rules, vec![change]).await,
        None => session.position().await.map(|position| position.version),
    }
}

pub(super) async fn lapse(
    session: &mut impl Session,
    rules: &Rules,
    expiry: Duration,
    now: SystemTime,
) -> Result<usize, StoreError> {
    let held = session.leases().await?;
    let mut changes = Vec::new();
    for held in held.iter().filter(|held| held.lapses(expiry, now)) {
        session.set_lapsed(held.lease.underlay_ip, true).await?;
        changes.push(Change::LeaseRemoved(held.lease));
    }
    let count = changes.len();
    if count > 0 {
        changes::take(session, rules, changes).await?;
    }
    Ok(count)
}

impl HeldLease {
    /// Whether it is to leave the list.
    pub(super) fn lapses(&self, expiry: Duration, now: SystemTime) -> bool {
        !self.lapsed && self.expired(expiry, now)
    }

    /// Whether it is on the list, and its cell said so within `age`.
    pub(super) fn renewed_within(&self, age: Duration, now: SystemTime) -> bool {
        !self.lapsed && !self.expired(age, now)
    }

    fn expired(&self, expiry: Duration, now: SystemTime) -> bool {
        let expiry = i64::try_from(expiry.as_secs()).unwrap_or(i64::MAX);
        self.renewed_at.saturating_add(expiry) <= seconds(now)
    }
}

fn oldest_expired(
    held: Vec<HeldLease>,
    pool: &LeasePool,
    kind: LeaseKind,
    now: SystemTime,
) -> Option<HeldLease> {
    held.into_iter()
        .filter(|held| held.lease.overlay_subnet.prefix_len() == pool.prefix_length(kind))
        .filter(|held| pool.lends(held.lease.overlay_subnet))
        .filter(|held| held.expired(pool.expiry(), now))
        .min_by_key(|held| held.renewed_at)
}

/// Removes a lease; returns what the list loses by it.
async fn forget(
    session: &mut impl Session,
    held: &HeldLease,
) -> Result<Option<Change>, StoreError> {
    let underlay_ip = held.lease.underlay_ip;
    session.remove_lease(underlay_ip).await?;
    if held.lapsed {
        session.set_lapsed(underlay_ip, false).await?;
        return Ok(None);
    }
    Ok(Some(Change::LeaseRemoved(held.lease)))
}

fn overlap(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other) || other.contains(&one)
}

fn seconds(time: SystemTime) -> i64 {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX)
}

/// A random number: the low 62 bits of a version 4 UUID are.
fn draw() -> u64 {
    Uuid::new_v4().as_u64_pair().1 & (u64::MAX >> 2)
}
