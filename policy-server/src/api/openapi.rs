//! The external API as an OpenAPI 3.1 document, for people and for programs that write clients.
//!
//! What an operation does stands beside its handler, what its body looks like beside the wire type,
//! and how it refuses is asked of the errors themselves. The document is checked in as
//! `docs/openapi.json`; a test tells when that is out of date.

mod finish;
pub(crate) mod refusals;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use axum::response::Response;
use policy::wire::{v0, v1};
use utoipa::{OpenApi, ToSchema};

use self::finish::{Aliases, Completeness, Tokens};
use super::{external, json_text, version::Version};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Network policies",
        version = "1",
        description = include_str!("openapi/introduction.md"),
    ),
    paths(
        external::uptime,
        external::health,
        external::whoami,
        external::policies::index,
        external::policies::create,
        external::policies::delete,
        external::cleanup::clean_up,
        external::tags,
        external::status::of_cells,
        external::status::of_policies,
        external::audit::index,
        document,
    ),
    components(schemas(Refusal, Version)),
    tags(
        (name = "policies", description = "Which app may reach which."),
        (name = "insight", description = "Who you are, who is who, and what came of policies."),
        (name = "service", description = "Whether the server is there, and what it can do."),
    ),
    modifiers(&Tokens, &Completeness, &Aliases),
)]
struct Document;

/// The document's text.
pub(crate) fn text() -> &'static str {
    &TEXT
}

static TEXT: LazyLock<String> = LazyLock::new(|| {
    let mut text = Document::openapi().to_pretty_json().expect("the document is made of text");
    text.push('\n');
    text
});

/// This document.
///
/// What you are reading, as JSON.
#[utoipa::path(
    get,
    path = "/networking/openapi.json",
    operation_id = "getDocument",
    tag = "service",
    responses((status = 200, description = "An OpenAPI 3.1 document.", body = Object)),
)]
pub(crate) async fn document() -> Response {
    json_text(text().to_owned())
}

/// Policies in the shape of the version the path names.
#[derive(ToSchema)]
#[schema(as = PolicyList)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum PolicyList {
    /// Version 1: ranges of ports.
    V1(v1::PolicyList),
    /// Version 0: one port each.
    V0(v0::PolicyList),
}

/// Why a request is refused.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct Refusal {
    /// One sentence without a full stop. Its words are stable.
    error: String,
}
