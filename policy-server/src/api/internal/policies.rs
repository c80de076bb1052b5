use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};

use super::shape::Shape;
use crate::{
    api::{conditional, error::ApiError, json_text, list::list, query, version},
    hold::{Outcome, hold},
    metrics::Operation,
    server::Server,
    snapshot::{Snapshot, Subject},
};

/// Policies with tags, possibly after a while. What the cell says it has is its receipt.
pub(crate) async fn index(
    State(server): State<Arc<Server>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let shape = Shape::of_version(&version::named_in(uri.path()));
    index_as(shape, &server, uri.query(), &headers).await
}

/// The same, for agents of 2016 that know their shape and no other.
pub(crate) async fn index_of_2016(
    State(server): State<Arc<Server>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    index_as(Shape::Of2016, &server, uri.query(), &headers).await
}

async fn index_as(
    shape: Shape,
    server: &Server,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Response {
    let subject = query::subject(query);
    let (known, wait) = (conditional::known(headers), conditional::wait(headers));
    if known.is_none() {
        // An agent that knows no versions may have been told that there is something new, by the probe
        // below, and would not ask again if it missed it.
        server.catch_up().await;
    }
    let _hearing =
        conditional::cell(headers).map(|cell| server.receipts.hear(cell, &subject, known.as_ref()));
    let outcome =
        hold(server, known.as_ref(), wait, |snapshot| snapshot.version_of(&subject)).await;
    match outcome {
        Outcome::Unchanged(version) => {
            conditional::stamped(conditional::not_modified(), &version, wait)
        }
        Outcome::Fresh(snapshot, version) => {
            let operation = Operation::about(&subject);
            let list =
                server.metrics.lookup(operation, || listed(&snapshot, &subject, shape, server));
            conditional::stamped(list, &version, wait)
        }
    }
}

/// The list of what `subject` asks for. Agents of today ask about a few apps in the form that is kept;
/// the others are told line by line.
fn listed(snapshot: &Snapshot, subject: &Subject, shape: Shape, server: &Server) -> Response {
    if let (Subject::Apps(apps), Shape::V1) = (subject, shape)
        && let Some((count, lines)) = snapshot.lines_of(apps)
    {
        return json_text(format!("{{\"total_policies\":{count},\"policies\":[{lines}]}}"));
    }
    list(snapshot.policies_of(subject), shape.form(server.tag_length), shape.counts())
}

/// A bare number (§5.2).
pub(crate) async fn last_updated(State(server): State<Arc<Server>>) -> Result<String, ApiError> {
    let nanos = server.store.last_updated().await.map_err(ApiError::ReadFailed)?;
    Ok(nanos.to_string())
}
