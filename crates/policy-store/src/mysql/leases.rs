//! Tables `subnets` and `netman_lapsed_leases` (spec/cell.md §E.2).

use std::net::Ipv4Addr;

use policy::Lease;
use sqlx::{FromRow, MySqlConnection};

use crate::{StoreError, error::Doing, row::LeaseRow, session::HeldLease};

#[derive(FromRow)]
struct HeldRow {
    #[sqlx(flatten)]
    lease: LeaseRow,
    last_renewed_at: i64,
    lapsed: bool,
}

pub(super) async fn all(tx: &mut MySqlConnection) -> Result<Vec<HeldLease>, StoreError> {
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
            Ok(HeldLease { lease: lease.try_into()?, renewed_at: last_renewed_at, lapsed })
        })
        .collect()
}

pub(super) async fn insert(
    tx: &mut MySqlConnection,
    lease: &Lease,
    renewed_at: i64,
) -> Result<(), StoreError> {
    let Lease { underlay_ip, overlay_subnet, overlay_hardware_addr } = lease;
    sqlx::query(
        "INSERT INTO subnets (underlay_ip, overlay_subnet, overlay_hwaddr, last_renewed_at)
         VALUES (?, ?, ?, ?)",
    )
    .bind(underlay_ip.to_string())
    .bind(overlay_subnet.to_string())
    .bind(overlay_hardware_addr.to_string())
    .bind(renewed_at)
    .execute(tx)
    .await
    .doing("adding a lease")?;
    Ok(())
}

pub(super) async fn remove(
    tx: &mut MySqlConnection,
    underlay_ip: Ipv4Addr,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM subnets WHERE underlay_ip = ?")
        .bind(underlay_ip.to_string())
        .execute(tx)
        .await
        .doing("removing a lease")?;
    Ok(())
}

pub(super) async fn renew(
    tx: &mut MySqlConnection,
    underlay_ip: Ipv4Addr,
    renewed_at: i64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE subnets SET last_renewed_at = ? WHERE underlay_ip = ?")
        .bind(renewed_at)
        .bind(underlay_ip.to_string())
        .execute(tx)
        .await
        .doing("renewing a lease")?;
    Ok(())
}

pub(super) async fn set_lapsed(
    tx: &mut MySqlConnection,
    underlay_ip: Ipv4Addr,
    lapsed: bool,
) -> Result<(), StoreError> {
    let statement = if lapsed {
        "INSERT INTO netman_lapsed_leases (underlay_ip) VALUES (?) ON DUPLICATE KEY UPDATE underlay_ip = underlay_ip"
    } else {
        "DELETE FROM netman_lapsed_leases WHERE underlay_ip = ?"
    };
    sqlx::query(statement)
        .bind(underlay_ip.to_string())
        .execute(tx)
        .await
        .doing("letting a lease lapse, or bringing it back")?;
    Ok(())
}
