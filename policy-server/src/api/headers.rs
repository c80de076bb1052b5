//! Headers every matched route answers with (spec/policy-server.md §2.4).

use axum::{
    extract::Request,
    http::{
        HeaderName, HeaderValue,
        header::{
            CONTENT_SECURITY_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
            X_FRAME_OPTIONS, X_XSS_PROTECTION,
        },
    },
    middleware::Next,
    response::Response,
};
use tower::Service;

const CAUTION: [(HeaderName, &str); 4] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_XSS_PROTECTION, "1; mode=block"),
    (X_FRAME_OPTIONS, "deny"),
    (CONTENT_SECURITY_POLICY, "frame-ancestors 'none'"),
];

const HSTS: [(HeaderName, &str); 1] = [(STRICT_TRANSPORT_SECURITY, "max-age=31536000")];

/// For answers that a browser may see.
pub(crate) async fn caution(request: Request, next: Next) -> Response {
    with(CAUTION, next.run(request).await)
}

/// For answers over TLS. Those to cells may be long in coming, so `next` is called, and not run: what
/// waits for it has no room for the request.
pub(crate) fn hsts(request: Request, mut next: Next) -> impl Future<Output = Response> {
    let answering = next.call(request);
    async move {
        let Ok(response) = answering.await;
        with(HSTS, response)
    }
}

fn with<const N: usize>(
    headers: [(HeaderName, &'static str); N],
    mut response: Response,
) -> Response {
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
