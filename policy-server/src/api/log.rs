//! One line per request, and an id by which callers can find it.

use std::{net::SocketAddr, time::Instant};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode},
    middleware::Next,
    response::Response,
};
use service::{
    log::{ACCESS, LAGER},
    serve::Peer,
};
use tower::Service;
use uuid::Uuid;

use super::{conditional, error::Explanation};
use crate::auth::Identity;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-vcap-request-id");

/// The id of a request, as an extension of it.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub String);

/// Passes the request on; then logs how it ended. The query is left out: it may be long, and nothing
/// stops a caller from putting a secret there.
pub(crate) fn one_line(mut request: Request, mut next: Next) -> impl Future<Output = Response> {
    let mut line = Line::of(&request);
    tracing::debug!(
        name: "serving", target: LAGER,
        {
            http.method = line.method.as_str(),
            http.path = &*line.path,
            http.id = line.request_id,
        },
        "Asked."
    );
    request.extensions_mut().insert(RequestId(line.request_id.clone()));
    // Called, and not run: what waits for the answer has no room for the request.
    let answering = next.call(request);
    async move {
        let Ok(mut response) = answering.await;
        line.status = Some(response.status());
        line.user = response.extensions_mut().remove::<Identity>().map(|identity| identity.subject);
        line.error =
            response.extensions_mut().remove::<Explanation>().map(|Explanation(text)| text);
        if let Ok(id) = HeaderValue::from_str(&line.request_id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        response
    }
}

/// What is known of a request. Written when dropped, so that a caller who hangs up leaves a line too.
struct Line {
    started: Instant,
    request_id: String,
    method: Method,
    /// A copy: with the query, which lists every app of a cell, it would take much more room while the
    /// poll is held.
    path: Box<str>,
    peer: Option<SocketAddr>,
    cell: Option<String>,
    user: Option<String>,
    status: Option<StatusCode>,
    error: Option<String>,
}

impl Line {
    fn of(request: &Request) -> Self {
        Self {
            started: Instant::now(),
            request_id: request_id(request.headers()),
            method: request.method().clone(),
            path: request.uri().path().into(),
            peer: request.extensions().get::<Peer>().map(|peer| peer.address),
            cell: conditional::cell(request.headers()).map(str::to_owned),
            user: None,
            status: None,
            error: None,
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Self { started, request_id, method, path, peer, cell, user, status, error } = self;
        let duration_ms = started.elapsed().as_micros() as f64 / 1000.0;
        let status = status.map(|status| status.as_u16());
        macro_rules! write_at {
            ($level:ident, $name:literal, $target:expr, $message:literal) => {
                tracing::$level!(
                    name: $name, target: $target,
                    {
                        http.method = method.as_str(),
                        http.path = &**path,
                        http.status = status,
                        duration_ms,
                        http.id = request_id,
                        peer.address = peer.map(tracing::field::display),
                        cell.id = cell.as_deref(),
                        user.name = user.as_deref(),
                        error = error.as_deref(),
                    },
                    $message
                )
            };
        }
        write_at!(debug, "done", LAGER, "Answered.");
        match status {
            None => write_at!(info, "hung-up", ACCESS, "The caller hung up."),
            Some(500..) => write_at!(error, "failed", ACCESS, "Failed to answer."),
            Some(_) => {
                // Lager's readers look for refusals among the errors (spec/policy-server.md §2.5).
                if error.is_some() {
                    write_at!(error, "refused", LAGER, "Refused.");
                }
                write_at!(info, "answered", ACCESS, "Answered.");
            }
        }
    }
}

/// The caller's id, if it sent one, and ours.
fn request_id(headers: &HeaderMap) -> String {
    let ours = Uuid::new_v4();
    match headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()) {
        Some(theirs) if !theirs.is_empty() => format!("{theirs}::{ours}"),
        _ => ours.to_string(),
    }
}
