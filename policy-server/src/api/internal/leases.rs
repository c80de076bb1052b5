//! The silk controller's API, on our internal listener (spec/cell.md §E.2).

use std::{net::Ipv4Addr, sync::Arc, time::SystemTime};

use axum::{body::Body, extract::State, http::HeaderMap, response::Response};
use policy::{
    Lease, Version,
    wire::lease::{AcquireRequest, LeaseBody, LeaseList, ReleaseRequest},
};
use policy_store::LeaseKind;
use serde::de::DeserializeOwned;

use crate::{
    api::{body, conditional, error::ApiError, json, json_text},
    hold::{Outcome, Poll},
    server::Server,
    snapshot::Topic,
};

/// The leases, possibly after a while, for which nothing of the request is kept.
#[expect(clippy::needless_pass_by_value, reason = "what was sent is let go of before waiting")]
pub(crate) fn list(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
) -> impl Future<Output = Response> {
    let (known, wait) = (conditional::known(&headers), conditional::wait(&headers));
    let poll = Poll { topic: Topic::Leases, known, wait };
    async move {
        match server.hold(&poll).await {
            Outcome::Unchanged(_, version) => {
                conditional::stamped(conditional::not_modified(), &version, wait)
            }
            Outcome::Fresh(snapshot, version) => {
                let leases = snapshot.leases().map(LeaseBody::from).collect();
                conditional::stamped(json(&LeaseList { leases }), &version, wait)
            }
        }
    }
}

pub(crate) async fn acquire(
    State(server): State<Arc<Server>>,
    body: Body,
) -> Result<Response, ApiError> {
    let AcquireRequest { underlay_ip, single_overlay_ip } = read(body).await?;
    let cell: Ipv4Addr =
        underlay_ip.parse().map_err(|_| ApiError::AcquireFor(underlay_ip.clone()))?;
    let kind = if single_overlay_ip { LeaseKind::SingleIp } else { LeaseKind::Block };
    let (store, pool) = (&server.store, &server.lease_pool);
    let (lease, version) = store
        .acquire_lease(pool, cell, kind, SystemTime::now())
        .await
        .map_err(ApiError::LeaseRefused)?;
    tracing::info!(underlay.ip = %cell, subnet = %lease.overlay_subnet, "Leased a subnet.");
    shown(&server, &version).await?;
    Ok(json(&LeaseBody::from(&lease)))
}

pub(crate) async fn renew(
    State(server): State<Arc<Server>>,
    body: Body,
) -> Result<Response, ApiError> {
    let lease: LeaseBody = read(body).await?;
    let lease = Lease::try_from(lease).map_err(ApiError::LeaseUnreadable)?;
    let version = server
        .store
        .renew_lease(&lease, SystemTime::now())
        .await
        .map_err(ApiError::LeaseRefused)?;
    done(&server, &version).await
}

pub(crate) async fn release(
    State(server): State<Arc<Server>>,
    body: Body,
) -> Result<Response, ApiError> {
    let ReleaseRequest { underlay_ip } = read(body).await?;
    let cell: Ipv4Addr =
        underlay_ip.parse().map_err(|_| ApiError::ReleaseFor(underlay_ip.clone()))?;
    let version = server
        .store
        .release_lease(cell)
        .await
        .map_err(|error| ApiError::LeaseRefused(error.into()))?;
    tracing::info!(underlay.ip = %cell, "Released a subnet.");
    done(&server, &version).await
}

async fn read<T: DeserializeOwned>(body: Body) -> Result<T, ApiError> {
    let body = body::read(body).await.map_err(ApiError::BodyUnread)?;
    gocompat::json::from_slice(&body).map_err(ApiError::BodyUnparsed)
}

async fn done(server: &Server, version: &Version) -> Result<Response, ApiError> {
    shown(server, version).await?;
    Ok(json_text("{}".to_owned()))
}

/// Cells list the leases next, and must find what they were just given.
async fn shown(server: &Server, version: &Version) -> Result<(), ApiError> {
    server.feed.shows(version).await.map_err(ApiError::Behind)
}
