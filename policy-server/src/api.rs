//! What handlers do, by resource; and around them, in the order a request meets them: [`strict`]
//! routing, [`headers`], one line of [`log`], the [`gate`].

pub(crate) mod body;
pub(crate) mod caller;
pub(crate) mod conditional;
pub(crate) mod error;
pub(crate) mod external;
pub(crate) mod gate;
pub(crate) mod headers;
pub(crate) mod internal;
pub(crate) mod list;
pub(crate) mod log;
pub(crate) mod query;
pub(crate) mod strict;
pub(crate) mod version;

use axum::{
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// A 200 with a JSON body as Go would write it.
fn json<T: Serialize>(value: &T) -> Response {
    json_text(gocompat::json::to_string(value))
}

fn json_text(text: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}
