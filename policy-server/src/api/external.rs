//! The external API, but for policies, which have a file of their own (spec/policy-server.md §2.7).

pub(crate) mod audit;
pub(crate) mod cleanup;
pub(crate) mod policies;
pub(crate) mod status;

use std::sync::Arc;

use axum::{Extension, extract::State, response::Response};
use policy::wire::tag::{TagBody, TagList};
use serde::Serialize;
use utoipa::ToSchema;

use super::{error::ApiError, json, openapi::refusals, version::Version};
use crate::{auth::Identity, server::Server};

/// Answer of whoami.
#[derive(Serialize, ToSchema)]
struct WhoAmI {
    /// The user or client a token speaks for.
    subject: String,
}

/// Ask whether the server is up.
///
/// Never touches the database: the platform asks this to learn whether the process lives.
#[utoipa::path(
    get,
    path = "/networking",
    operation_id = "getUptime",
    tag = "service",
    responses((
        status = 200,
        description = "It is, and since when.",
        body = String,
        content_type = "text/plain",
        example = "Network policy server, up for 1h2m3.456s\n",
    )),
)]
pub(crate) async fn uptime(State(server): State<Arc<Server>>) -> String {
    let up = gocompat::duration::format(server.started.elapsed());
    format!("Network policy server, up for {up}\n")
}

/// Ask whether the database answers.
#[utoipa::path(
    get,
    path = "/health",
    operation_id = "getHealth",
    tag = "service",
    responses((status = 200, description = "It does."), refusals::OfHealth),
)]
pub(crate) async fn health(State(server): State<Arc<Server>>) -> Result<(), ApiError> {
    server.store.ping().await.map_err(ApiError::PingFailed)
}

/// Ask who you are.
///
/// The user a token speaks for, or the client where no user is involved.
#[utoipa::path(
    get,
    path = "/networking/{version}/external/whoami",
    operation_id = "getWhoAmI",
    tag = "insight",
    params(("version" = Version, Path)),
    responses(
        (
            status = 200,
            description = "Who you are.",
            body = WhoAmI,
            example = json!({"subject": "alice"}),
        ),
        refusals::ForAdmins,
    ),
    security(("token" = ["network.admin"])),
)]
pub(crate) async fn whoami(Extension(identity): Extension<Identity>) -> Response {
    json(&WhoAmI { subject: identity.subject })
}

/// List the tags of apps.
///
/// Packets carry the tag of the app that sent them, and cells judge by it. An app has one while a
/// policy names it; afterwards another app may get it. Ordered by tag.
#[utoipa::path(
    get,
    path = "/networking/{version}/external/tags",
    operation_id = "listTags",
    tag = "insight",
    params(("version" = Version, Path)),
    responses(
        (
            status = 200,
            description = "The tags in use.",
            body = TagList,
            example = json!({"tags": [
                {"id": "38f08df0-19df-4439-b4e9-61096d4301ea", "tag": "0001", "type": "app"},
            ]}),
        ),
        refusals::ForAdminsReading,
    ),
    security(("token" = ["network.admin"])),
)]
pub(crate) async fn tags(State(server): State<Arc<Server>>) -> Result<Response, ApiError> {
    let tags = server.store.tags().await.map_err(ApiError::ReadFailed)?;
    let body = |tag: policy_store::AssignedTag| TagBody {
        tag: tag.tag.to_hex(server.tag_length),
        id: tag.id,
        kind: tag.kind,
    };
    Ok(json(&TagList { tags: tags.into_iter().map(body).collect() }))
}
