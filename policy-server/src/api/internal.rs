//! The internal API: what cells ask. Whoever has a certificate of our authority may
//! (spec/policy-server.md §5).

pub(crate) mod leases;
pub(crate) mod policies;
pub(crate) mod security_groups;
mod shape;

use std::sync::Arc;

use axum::{body::Body, extract::State, response::Response};
use policy::wire::tag::{TagBody, TagRequest};

use super::{body, error::ApiError, json};
use crate::server::Server;

pub(crate) async fn tag(
    State(server): State<Arc<Server>>,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::read(body).await.map_err(ApiError::BodyUnread)?;
    let TagRequest { id, kind } =
        gocompat::json::from_slice(&body).map_err(ApiError::BodyUnparsed)?;
    let tag = match server.store.tag_for(&id, &kind).await {
        Ok(tag) => tag,
        Err(error) => return Err(server.not_created(error).await),
    };
    Ok(json(&TagBody { id, tag: tag.to_hex(server.tag_length), kind }))
}
