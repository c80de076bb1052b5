//! Routing as clients know it: a HEAD is no GET, and the bodies of 404 and 405
//! (spec/policy-server.md §2.3).

use axum::{
    Router,
    extract::Request,
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    },
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use tower::ServiceBuilder;

/// `routes`, with these rules around them. They must see the request before it is routed, and a
/// layer of the router itself would not.
pub(crate) fn strict(routes: Router) -> Router {
    let routes = routes.fallback(|| async { not_found() });
    Router::new().fallback_service(ServiceBuilder::new().layer(from_fn(apply)).service(routes))
}

async fn apply(mut request: Request, next: Next) -> Response {
    if request.method() == Method::HEAD {
        // The router would answer as to GET; nothing is registered for TRACE.
        *request.method_mut() = Method::TRACE;
    }
    let response = next.run(request).await;
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        method_not_allowed(response.headers())
    } else {
        response
    }
}

fn not_found() -> Response {
    plain(StatusCode::NOT_FOUND, "404 page not found\n")
}

fn method_not_allowed(routed: &HeaderMap) -> Response {
    let methods = routed.get(ALLOW).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let methods: Vec<_> = methods.split(',').filter(|method| *method != "HEAD").collect();
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    if let Ok(allow) = HeaderValue::from_str(&methods.join(", ")) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    let headers =
        [(CONTENT_TYPE, "text/plain; charset=utf-8"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (status, headers, text).into_response()
}
