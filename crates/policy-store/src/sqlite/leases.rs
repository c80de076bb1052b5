//! Tables `subnets` and `netman_lapsed_leases` (spec/cell.md §E.2).

use std::{
    net::Ipv4Addr,
    time::{Duration, SystemTime},
};

use ipnet::Ipv4Net;
use policy::{Lease, Version};
use sqlx::{FromRow, SqliteConnection};
use uuid::Uuid;

use super::{
    changes,
    row::{LEASE_ADDED, LEASE_REMOVED, LeaseRow},
};
use crate::{LeaseError, LeaseKind, LeasePool, StoreError, error::Doing};

/// A lease, on the list or not.
struct Held {
    lease: Lease,
    renewed_at: i64,
    lapsed: bool,
}

#[derive(FromRow)]
struct HeldRow {
    #[sqlx(flatten)]
    lease: LeaseRow,
    last_renewed_at: i64,
    lapsed: bool,
}

pub(super) async fn list(tx: &mut SqliteConnection) -> Result<Vec<Lease>, StoreError> {
    let held = all(tx).await?;
    Ok(held.into_iter().filter(|held| !held.lapsed).map(|held| held.lease).collect())
}

pub(super) async fn acquire(
    tx: &mut SqliteConnection,
    pool: &LeasePool,
    underlay_ip: Ipv4Addr,
    kind: LeaseKind,
    now: SystemTime,
) -> Result<(Lease, Version), LeaseError> {
    let mut held = all(tx).await?;
    let mut changes = Vec::new();
    if let Some(index) = held.iter().position(|held| held.lease.underlay_ip == underlay_ip) {
        if pool.lends(held[index].lease.overlay_subnet) {
            return Ok((held[index].lease, changes::version(tx).await?));
        }
        let foreign = held.swap_remove(index);
        forget(tx, &foreign, &mut changes).await?;
    }
    let taken: Vec<_> = held.iter().map(|held| held.lease.overlay_subnet).collect();
    let subnet = match pool.choose(kind, &taken, draw()) {
        Some(subnet) => subnet,
        None => {
            let expired = oldest_expired(held, pool, kind, now).ok_or(LeaseError::NoneAvailable)?;
            forget(tx, &expired, &mut changes).await?;
            expired.lease.overlay_subnet
        }
    };
    let lease = Lease::new(underlay_ip, subnet);
    insert(tx, &lease, now).await?;
    changes.push((LEASE_ADDED, lease));
    Ok((lease, changes::take_lease_revision(tx, &changes).await?))
}

pub(super) async fn renew(
    tx: &mut SqliteConnection,
    lease: &Lease,
    now: SystemTime,
) -> Result<Version, LeaseError> {
    let held = all(tx).await?;
    match held.iter().find(|held| held.lease.underlay_ip == lease.underlay_ip) {
        Some(known) if known.lease != *lease => return Err(LeaseError::Mismatch),
        Some(known) => {
            sqlx::query("UPDATE subnets SET last_renewed_at = ? WHERE underlay_ip = ?")
                .bind(seconds(now))
                .bind(lease.underlay_ip.to_string())
                .execute(&mut *tx)
                .await
                .doing("renewing a lease")?;
            if !known.lapsed {
                return Ok(changes::version(tx).await?);
            }
            unlapse(tx, lease.underlay_ip).await?;
        }
        None => {
            let clash = |held: &Held| {
                overlap(held.lease.overlay_subnet, lease.overlay_subnet)
                    || held.lease.overlay_hardware_addr == lease.overlay_hardware_addr
            };
            if held.iter().any(clash) {
                return Err(LeaseError::Taken(*lease));
            }
            insert(tx, lease, now).await?;
        }
    }
    Ok(changes::take_lease_revision(tx, &[(LEASE_ADDED, *lease)]).await?)
}

pub(super) async fn release(
    tx: &mut SqliteConnection,
    underlay_ip: Ipv4Addr,
) -> Result<Version, StoreError> {
    let held = all(tx).await?;
    let mut changes = Vec::new();
    if let Some(held) = held.iter().find(|held| held.lease.underlay_ip == underlay_ip) {
        forget(tx, held, &mut changes).await?;
    }
    if changes.is_empty() {
        changes::version(tx).await
    } else {
        changes::take_lease_revision(tx, &changes).await
    }
}

pub(super) async fn lapse(
    tx: &mut SqliteConnection,
    expiry: Duration,
    now: SystemTime,
) -> Result<usize, StoreError> {
    let held = all(tx).await?;
    let mut changes = Vec::new();
    for held in held.iter().filter(|held| !held.lapsed && held.expired(expiry, now)) {
        sqlx::query("INSERT INTO netman_lapsed_leases (underlay_ip) VALUES (?)")
            .bind(held.lease.underlay_ip.to_string())
            .execute(&mut *tx)
            .await
            .doing("letting a lease lapse")?;
        changes.push((LEASE_REMOVED, held.lease));
    }
    if !changes.is_empty() {
        changes::take_lease_revision(tx, &changes).await?;
    }
    Ok(changes.len())
}

impl Held {
    fn expired(&self, expiry: Duration, now: SystemTime) -> bool {
        let expiry = i64::try_from(expiry.as_secs()).unwrap_or(i64::MAX);
        self.renewed_at.saturating_add(expiry) <= seconds(now)
    }
}

fn oldest_expired(
    held: Vec<Held>,
    pool: &LeasePool,
    kind: LeaseKind,
    now: SystemTime,
) -> Option<Held> {
    held.into_iter()
        .filter(|held| held.lease.overlay_subnet.prefix_len() == pool.prefix_length(kind))
        .filter(|held| pool.lends(held.lease.overlay_subnet))
        .filter(|held| held.expired(pool.expiry(), now))
        .min_by_key(|held| held.renewed_at)
}

async fn all(tx: &mut SqliteConnection) -> Result<Vec<Held>, StoreError> {
    let rows: Vec<HeldRow> = sqlx::query_as(
        "SELECT underlay_ip, overlay_subnet, overlay_hwaddr, last_renewed_at,
                underlay_ip IN (SELECT underlay_ip FROM netman_lapsed_leases) AS lapsed
         FROM subnets",
    )
    .fetch_all(tx)
    .await
    .doing("listing leases")?;
    rows.into_iter()
        .map(|HeldRow { lease, last_renewed_at, lapsed }| {
            Ok(Held { lease: lease.try_into()?, renewed_at: last_renewed_at, lapsed })
        })
        .collect()
}

async fn insert(
    tx: &mut SqliteConnection,
    lease: &Lease,
    now: SystemTime,
) -> Result<(), StoreError> {
    let Lease { underlay_ip, overlay_subnet, overlay_hardware_addr } = lease;
    sqlx::query(
        "INSERT INTO subnets (underlay_ip, overlay_subnet, overlay_hwaddr, last_renewed_at)
         VALUES (?, ?, ?, ?)",
    )
    .bind(underlay_ip.to_string())
    .bind(overlay_subnet.to_string())
    .bind(overlay_hardware_addr.to_string())
    .bind(seconds(now))
    .execute(tx)
    .await
    .doing("adding a lease")?;
    Ok(())
}

/// Removes a lease; what the list loses by it goes to `changes`.
async fn forget(
    tx: &mut SqliteConnection,
    held: &Held,
    changes: &mut Vec<(&'static str, Lease)>,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM subnets WHERE underlay_ip = ?")
        .bind(held.lease.underlay_ip.to_string())
        .execute(&mut *tx)
        .await
        .doing("removing a lease")?;
    if held.lapsed {
        unlapse(tx, held.lease.underlay_ip).await?;
    } else {
        changes.push((LEASE_REMOVED, held.lease));
    }
    Ok(())
}

async fn unlapse(tx: &mut SqliteConnection, underlay_ip: Ipv4Addr) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM netman_lapsed_leases WHERE underlay_ip = ?")
        .bind(underlay_ip.to_string())
        .execute(tx)
        .await
        .doing("bringing a lapsed lease back")?;
    Ok(())
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
