//! How far changes have got: by cell, and by policy (design §2.3).

use std::sync::Arc;

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use policy::wire::status::{PoliciesStatus, Status};

use crate::{
    api::{json, openapi::refusals, query, version::Version},
    server::Server,
};

/// Ask what cells enforce.
///
/// Each cell tells which revision its kernel enforces. A change is in force everywhere as soon as
/// `complete` is true and each cell's `enforced` has reached its revision, or the cell's `wanted` if
/// that is smaller: the cell is not concerned then.
#[utoipa::path(
    get,
    path = "/networking/{version}/external/status",
    operation_id = "getStatus",
    tag = "insight",
    params(
        ("version" = Version, Path),
        (
            "id" = Option<Vec<String>>, Query, style = Form, explode = false,
            description = "Only cells that ask about one of these apps.",
        ),
    ),
    responses(
        (
            status = 200,
            description = "The cells and what they enforce.",
            body = Status,
            example = json!({
                "life": "0a7c9a52-7a57-44e5-8f0c-5ad0b0b4f0a1",
                "revision": 42,
                "complete": true,
                "cells": [{
                    "cell": "cell-1",
                    "server": "5f0c6f36-7d0c-4d5c-a6f5-2f3f1f0c8f7e",
                    "enforced": 42,
                    "enforced_seconds": 1.5,
                    "wanted": 41,
                    "silent_seconds": 0.0,
                    "apps": 117,
                    "backend": "nftables",
                    "security_groups": {"enforced": 40, "wanted": 38, "spaces": 12},
                }],
            }),
        ),
        refusals::ForAdmins,
    ),
    security(("token" = ["network.admin"])),
)]
pub(crate) async fn of_cells(
    State(server): State<Arc<Server>>,
    RawQuery(query): RawQuery,
) -> Response {
    let apps = query::apps(query.as_deref(), "id");
    let (receipts, store) = (&server.receipts, &*server.store);
    // A database that does not answer is waited for once.
    let (cells, ()) = tokio::join!(receipts.of_all_servers(store), receipts.read_of_groups(store));
    let snapshot = server.feed.snapshot();
    let mut status = cells.status(&snapshot, apps.as_ref());
    server.receipts.groups.tell(&mut status.cells, &snapshot);
    json(&status)
}

/// Ask where policies are in force.
///
/// For each policy, on how many of the cells that run one of its apps; the others are named, up to ten
/// of them. A policy is in force everywhere as soon as `complete` is true and `enforced` is `relevant`.
/// One that was removed is not told of: ask about the cells of its apps.
#[utoipa::path(
    get,
    path = "/networking/{version}/external/policies/status",
    operation_id = "getPoliciesStatus",
    tag = "insight",
    params(
        ("version" = Version, Path),
        (
            "id" = Option<Vec<String>>, Query, style = Form, explode = false,
            description = "Only policies with one of these apps at either end. The other parameters \
                           do not count then.",
        ),
        (
            "source_id" = Option<Vec<String>>, Query, style = Form, explode = false,
            description = "Only policies with one of these apps as their source.",
        ),
        (
            "dest_id" = Option<Vec<String>>, Query, style = Form, explode = false,
            description = "Only policies with one of these apps as their destination.",
        ),
    ),
    responses(
        (
            status = 200,
            description = "The policies and how far they have got, in the shape of version 1.",
            body = PoliciesStatus,
            example = json!({
                "life": "0a7c9a52-7a57-44e5-8f0c-5ad0b0b4f0a1",
                "revision": 42,
                "complete": true,
                "policies": [{
                    "source": {"id": "38f08df0-19df-4439-b4e9-61096d4301ea"},
                    "destination": {
                        "id": "308e7ef1-63f1-4a6c-978c-2e527cbb1c36",
                        "protocol": "tcp",
                        "ports": {"start": 8080, "end": 8090},
                    },
                    "revision": 41,
                    "relevant": 3,
                    "enforced": 2,
                    "waiting": ["cell-7"],
                }],
            }),
        ),
        refusals::ForAdmins,
    ),
    security(("token" = ["network.admin"])),
)]
pub(crate) async fn of_policies(
    State(server): State<Arc<Server>>,
    RawQuery(query): RawQuery,
) -> Response {
    let cells = server.receipts.of_all_servers(&*server.store).await;
    let snapshot = server.feed.snapshot();
    let entries = snapshot.select(&query::filter(query.as_deref()));
    json(&cells.policies(&snapshot, &entries))
}
