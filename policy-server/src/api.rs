//! What handlers do, by resource; and around them, in the order a request meets them: [`headers`],
//! [`cors`], one line of [`log`], the [`gate`], the [`rate`], and a cap on the [`body`].

pub(crate) mod body;
pub(crate) mod caller;
pub(crate) mod conditional;
pub(crate) mod cors;
pub(crate) mod error;
pub(crate) mod external;
pub(crate) mod gate;
pub(crate) mod headers;
pub(crate) mod internal;
pub(crate) mod legacy;
pub(crate) mod list;
pub(crate) mod log;
pub(crate) mod openapi;
pub(crate) mod query;
pub(crate) mod rate;
mod settings;
pub(crate) mod version;

use axum::{
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use serde::Serialize;

pub use settings::{ApiSettings, Profile, RateLimit};

/// What a request counts as in metrics, such as `PoliciesIndex` (spec/policy-server.md §2.1): an
/// extension of every request a route of a table matches, but for OPTIONS, and of its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Measured(pub &'static str);

/// A 200 with a JSON body as Go would write it.
fn json<T: Serialize>(value: &T) -> Response {
    json_text(gocompat::json::to_string(value))
}

fn json_text(text: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}
