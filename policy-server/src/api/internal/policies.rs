use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};
use policy::{Version, wire::delta};

use super::shape::Shape;
use crate::{
    api::{conditional, error::ApiError, json_text, list::list, query, version},
    hold::{Outcome, Poll},
    metrics::{Operation, PollAnswer},
    server::Server,
    snapshot::{Delta, Entry, Snapshot, Subject, Topic},
};

/// A cell that nothing concerned for so many revisions is told, at the end of a wait, that its version
/// is as good as the newest: a version from before what a server remembers costs it the whole.
const STALE: u64 = 256;

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
    let subject = server.feed.snapshot().sharing(query::subject(query));
    let (known, wait) = (conditional::known(headers), conditional::wait(headers));
    let cell = conditional::cell(headers);
    if known.is_none() && cell.is_none() {
        // An agent of the existing system asks once for what it was told is new, and not again if it
        // missed it. Ours is told of whatever comes later when it asks with the version it got.
        server.catch_up().await;
    }
    let _hearing = cell.map(|cell| {
        let word = conditional::word(headers, &Arc::new(subject.clone()), known.as_ref());
        server.receipts.hear(cell, word)
    });
    let takes_changes = shape == Shape::V1 && conditional::takes_changes(headers);
    let poll = Poll { topic: Topic::Policies(subject), known, wait };
    let outcome = server.hold(&poll).await;
    let (answer, version, how) = answer(&outcome, &poll, shape, takes_changes, server);
    server.metrics.poll_answered(how);
    conditional::stamped(answer, &version, wait)
}

/// What `poll` is answered, of which version, and how it was told.
fn answer(
    outcome: &Outcome,
    poll: &Poll,
    shape: Shape,
    takes_changes: bool,
    server: &Server,
) -> (Response, Version, PollAnswer) {
    let (snapshot, version) = match outcome {
        Outcome::Fresh(snapshot, version) => (snapshot, version.clone()),
        Outcome::Unchanged(snapshot, known) => {
            let (now, then) = (snapshot.version().revision.0, known.revision.0);
            if !takes_changes || now.saturating_sub(then) < STALE {
                return (conditional::not_modified(), known.clone(), PollAnswer::Unchanged);
            }
            (snapshot, snapshot.version().clone())
        }
    };
    let Topic::Policies(subject) = &poll.topic else { unreachable!("policies were asked for") };
    if takes_changes && let Some(change) = change(snapshot, subject, poll.known.as_ref()) {
        return (change, version, PollAnswer::Delta);
    }
    let operation = Operation::about(subject);
    let list = server.metrics.lookup(operation, || listed(snapshot, subject, shape, server));
    (list, version, PollAnswer::Whole)
}

/// What became of the list of `subject` since `known`, if that is known and the list is one of apps.
fn change(snapshot: &Snapshot, subject: &Subject, known: Option<&Version>) -> Option<Response> {
    let (Subject::Apps(apps), Some(known)) = (subject, known) else { return None };
    let Delta { total, removed, added } = snapshot.delta(apps, known)?;
    let text = delta::write(total, removed.iter().map(line), added.iter().map(line));
    Some(conditional::change(json_text(text), known))
}

fn line(entry: &Arc<Entry>) -> &str {
    entry.line.tagged()
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
    let nanos = match server.feed.last_updated(&*server.store) {
        Some(seen) => server.metrics.lookup(Operation::LastUpdated, || seen),
        None => server.store.last_updated().await.map_err(ApiError::ReadFailed)?,
    };
    Ok(nanos.to_string())
}
