use std::sync::Arc;

use axum::{
    extract::{Path, RawQuery, State},
    http::HeaderMap,
    response::Response,
};

use super::shape::Shape;
use crate::{
    api::{conditional, error::ApiError, list::list, query},
    hold::{Outcome, hold},
    server::Server,
};

/// Policies with tags, possibly after a while. What the cell says it has is its receipt.
pub(crate) async fn index(
    State(server): State<Arc<Server>>,
    Path(version): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let shape = Shape::of_version(&version);
    let subject = query::subject(query.as_deref());
    let (known, wait) = (conditional::known(&headers), conditional::wait(&headers));
    let _hearing = conditional::cell(&headers)
        .map(|cell| server.receipts.hear(cell, &subject, known.as_ref()));
    let outcome =
        hold(&server, known.as_ref(), wait, |snapshot| snapshot.version_of(&subject)).await;
    match outcome {
        Outcome::Unchanged(version) => {
            conditional::stamped(conditional::not_modified(), &version, wait)
        }
        Outcome::Fresh(snapshot, version) => {
            let policies = snapshot.policies_of(&subject);
            let form = shape.form(server.tag_length);
            conditional::stamped(list(policies, form, true), &version, wait)
        }
    }
}

/// A bare number (§5.2).
pub(crate) async fn last_updated(State(server): State<Arc<Server>>) -> Result<String, ApiError> {
    let nanos = server.store.last_updated().await.map_err(ApiError::ReadFailed)?;
    Ok(nanos.to_string())
}
