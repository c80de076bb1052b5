//! The external API, but for policies, which have a file of their own (spec/policy-server.md §2.7).

pub(crate) mod audit;
pub(crate) mod policies;

use std::sync::Arc;

use axum::{
    Extension,
    extract::{RawQuery, State},
    response::Response,
};
use policy::wire::tag::{TagBody, TagList};
use serde::Serialize;

use super::{error::ApiError, json, query};
use crate::{auth::Identity, server::Server};

/// Answer of whoami.
#[derive(Serialize)]
struct WhoAmI {
    subject: String,
}

/// Never touches the database: the platform asks this to learn whether the process lives.
pub(crate) async fn uptime(State(server): State<Arc<Server>>) -> String {
    let up = gocompat::duration::format(server.started.elapsed());
    format!("Network policy server, up for {up}\n")
}

pub(crate) async fn health(State(server): State<Arc<Server>>) -> Result<(), ApiError> {
    server.store.ping().await.map_err(ApiError::PingFailed)
}

pub(crate) async fn whoami(Extension(identity): Extension<Identity>) -> Response {
    json(&WhoAmI { subject: identity.subject })
}

pub(crate) async fn tags(State(server): State<Arc<Server>>) -> Result<Response, ApiError> {
    let tags = server.store.tags().await.map_err(ApiError::ReadFailed)?;
    let body = |tag: policy_store::AssignedTag| TagBody {
        tag: tag.tag.to_hex(server.tag_length),
        id: tag.id,
        kind: tag.kind,
    };
    Ok(json(&TagList { tags: tags.into_iter().map(body).collect() }))
}

/// What cells enforce: all of them, or those that ask about one of the apps in `id` (design §2.3).
pub(crate) async fn status(
    State(server): State<Arc<Server>>,
    RawQuery(query): RawQuery,
) -> Response {
    let apps = query::apps(query.as_deref(), "id");
    json(&server.receipts.status(&server.feed.snapshot(), apps.as_ref()))
}
