use std::{convert::Infallible, future::ready, sync::Arc};

use axum::{
    Router,
    extract::Request,
    handler::Handler,
    http::{
        HeaderName, HeaderValue, Method, StatusCode,
        header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    },
    response::{IntoResponse, Response},
    routing::{MethodRouter, any},
};
use futures::{TryFutureExt, future::Either};
use tower::Service;

use super::{pattern::Pattern, pipeline::Pipeline};
use crate::{
    api::{Measured, cors},
    auth::Access,
    server::Server,
};

/// One line of a table: what answers a method on a path.
pub(super) struct Row {
    pub method: Method,
    pub path: Pattern,
    /// The scopes a token needs; `None` for what is open to all.
    pub access: Option<Access>,
    pub measured: Measured,
    pub handler: MethodRouter<Arc<Server>>,
}

/// A row. `handler` answers whichever method it is asked with; the table sees to it that that is
/// `method`.
pub(super) fn row<Arguments: 'static>(
    method: Method,
    path: &'static str,
    access: Option<Access>,
    measured: &'static str,
    handler: impl Handler<Arguments, Arc<Server>>,
) -> Row {
    let (path, measured) = (Pattern::new(path), Measured(measured));
    Row { method, path, access, measured, handler: any(handler) }
}

impl Row {
    /// The row for one version only; `None` if its path leaves none open.
    pub(super) fn at_version(self, version: &'static str) -> Option<Self> {
        let path = self.path.at_version(version)?;
        Some(Self { path, ..self })
    }
}

/// Rows with what is around them, ready to answer.
#[derive(Default)]
pub(super) struct Table {
    endpoints: Vec<Endpoint>,
}

struct Endpoint {
    method: Method,
    path: Pattern,
    /// Nothing measures answers to OPTIONS.
    measured: Option<Measured>,
    answer: MethodRouter,
}

impl Table {
    /// Adds `rows`, each wrapped by `around`. Where two rows fit a request, the earlier answers.
    pub(super) fn with(mut self, rows: Vec<Row>, around: impl Fn(Row) -> MethodRouter) -> Self {
        self.endpoints.extend(rows.into_iter().map(|row| Endpoint {
            method: row.method.clone(),
            path: row.path,
            measured: Some(row.measured),
            answer: around(row),
        }));
        self
    }

    /// Adds `rows`, and OPTIONS on each of their paths (§2.10).
    pub(super) fn with_preflights(self, rows: Vec<Row>, pipeline: &Pipeline) -> Self {
        let mut known: Vec<(Method, Pattern)> =
            rows.iter().map(|row| (row.method.clone(), row.path)).collect();
        let mut paths: Vec<Pattern> = Vec::new();
        for row in &rows {
            // A path with a literal version is covered by the one that leaves it open.
            if !paths.iter().any(|path| path.matches(&row.path.to_string())) {
                paths.push(row.path);
            }
        }
        known.extend(paths.iter().map(|path| (Method::OPTIONS, *path)));
        let known: Arc<[_]> = known.into();

        let mut table = self.with(rows, |row| pipeline.external_2024(row));
        table.endpoints.extend(paths.into_iter().map(|path| {
            let known = known.clone();
            let methods = move |request: Request| async move {
                let path = request.uri().path();
                let counts = |(_, pattern): &&(Method, Pattern)| pattern.matches_word(path);
                cors::preflight(known.iter().filter(counts).map(|(method, _)| method))
            };
            Endpoint {
                method: Method::OPTIONS,
                path,
                measured: None,
                answer: pipeline.preflight(any(methods)),
            }
        }));
        table
    }

    /// The table as a service. It routes by itself: a HEAD is no GET here, a version may be an empty
    /// segment, and what a 404 and a 405 say is part of the contract (§2.3).
    pub(super) fn into_router(self) -> Router {
        let endpoints: Arc<[Endpoint]> = self.endpoints.into();
        Router::new().fallback(move |request| answer(&endpoints, request))
    }
}

/// What answers `request`. A poll may be held for a minute, so there is no room in it for anything
/// that is only needed before.
fn answer(
    endpoints: &[Endpoint],
    mut request: Request,
) -> impl Future<Output = Result<Response, Infallible>> + use<> {
    let (method, path) = (request.method(), request.uri().path());
    let fits = |endpoint: &&Endpoint| endpoint.method == *method && endpoint.path.matches(path);
    let Some(Endpoint { answer, measured, .. }) = endpoints.iter().find(fits) else {
        return Either::Left(ready(Ok(refusal(endpoints, path))));
    };
    let measured = *measured;
    if let Some(measured) = measured {
        request.extensions_mut().insert(measured);
    }
    let answering = Service::call(&mut answer.clone(), request);
    Either::Right(answering.map_ok(move |mut response| {
        if let Some(measured) = measured {
            response.extensions_mut().insert(measured);
        }
        response
    }))
}

/// What is said where no endpoint fits: which methods `path` has, or that there is no such path.
fn refusal(endpoints: &[Endpoint], path: &str) -> Response {
    let here = endpoints.iter().filter(|endpoint| endpoint.path.matches(path));
    let methods: Vec<_> = here.map(|endpoint| endpoint.method.as_str()).collect();
    if methods.is_empty() {
        return plain(StatusCode::NOT_FOUND, "404 page not found\n");
    }
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    let allow = HeaderValue::from_str(&methods.join(", ")).expect("methods are visible ASCII");
    response.headers_mut().insert(ALLOW, allow);
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    const HEADERS: [(HeaderName, &str); 2] =
        [(CONTENT_TYPE, "text/plain; charset=utf-8"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (status, HEADERS, text).into_response()
}
