//! Which web pages may call the external API (spec/policy-server.md §2.10).

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{
        HeaderName, HeaderValue, Method,
        header::{
            ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
            ACCESS_CONTROL_ALLOW_ORIGIN, ORIGIN,
        },
    },
    middleware::Next,
    response::{IntoResponse, Response},
};

/// The origins that are allowed, in order; `*` stands for any.
#[derive(Debug, Clone)]
pub(crate) struct Origins(Arc<[HeaderValue]>);

impl Origins {
    /// What cannot be sent in a header no browser ever asks for, and it is left out.
    pub(crate) fn new(allowed: &[String]) -> Self {
        Self(allowed.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect())
    }

    /// The entry that lets `origin` in: the first that equals it or is `*`.
    fn admitting(&self, origin: &HeaderValue) -> Option<&HeaderValue> {
        self.0.iter().find(|entry| *entry == origin || *entry == "*")
    }
}

/// Tells the page's browser that it may show the answer, if it may.
pub(crate) async fn allow_origin(
    State(origins): State<Origins>,
    request: Request,
    next: Next,
) -> Response {
    let admitting = request.headers().get(ORIGIN).and_then(|origin| origins.admitting(origin));
    let admitting = admitting.cloned();
    let mut response = next.run(request).await;
    if let Some(entry) = admitting {
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, entry);
    }
    response
}

/// The answer to OPTIONS where `methods` are known.
pub(crate) fn preflight<'a>(methods: impl Iterator<Item = &'a Method>) -> Response {
    const HEADERS: [(HeaderName, &str); 1] = [(ACCESS_CONTROL_ALLOW_HEADERS, "authorization")];
    let methods: Vec<_> = methods.map(Method::as_str).collect();
    let methods = HeaderValue::from_str(&methods.join(",")).expect("methods are visible ASCII");
    (HEADERS, [(ACCESS_CONTROL_ALLOW_METHODS, methods)]).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitting(allowed: &[&str], origin: &str) -> Option<String> {
        let allowed: Vec<_> = allowed.iter().map(|&entry| entry.to_owned()).collect();
        let origin = HeaderValue::from_str(origin).unwrap();
        let origins = Origins::new(&allowed);
        origins.admitting(&origin).map(|entry| entry.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_first_entry_that_fits_is_echoed() {
        let page = "https://a.example";
        assert_eq!(admitting(&[page], page).as_deref(), Some(page));
        assert_eq!(admitting(&["*", page], page).as_deref(), Some("*"));
        assert_eq!(admitting(&[page, "*"], page).as_deref(), Some(page));
        assert_eq!(admitting(&[page, "*"], "https://b.example").as_deref(), Some("*"));
        for other in ["http://a.example", "https://a.example:443", "https://A.example", "null"] {
            assert_eq!(admitting(&[page], other), None, "{other}");
        }
        assert_eq!(admitting(&[], page), None);
        assert_eq!(admitting(&["bad\nentry"], page), None);
    }
}
