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

const EXTERNAL: [(HeaderName, &str); 4] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_XSS_PROTECTION, "1; mode=block"),
    (X_FRAME_OPTIONS, "deny"),
    (CONTENT_SECURITY_POLICY, "frame-ancestors 'none'"),
];

const INTERNAL: [(HeaderName, &str); 1] = [(STRICT_TRANSPORT_SECURITY, "max-age=31536000")];

pub(crate) async fn external(request: Request, next: Next) -> Response {
    with(&EXTERNAL, next.run(request).await)
}

pub(crate) async fn internal(request: Request, next: Next) -> Response {
    with(&INTERNAL, next.run(request).await)
}

fn with(headers: &[(HeaderName, &'static str)], mut response: Response) -> Response {
    for (name, value) in headers {
        response.headers_mut().insert(name.clone(), HeaderValue::from_static(value));
    }
    response
}
