//! Version 0 as it was in 2016, where that differs from what it became (spec/policy-server.md §2.2,
//! §2.5, §14.2): two answers, the words of refusals, and no headers.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Request, State},
    http::{
        HeaderMap,
        header::{CONTENT_TYPE, ETAG},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{conditional::PREFERENCE_APPLIED, error::ApiError, json};
use crate::{auth::Identity, server::Server};

#[derive(Serialize)]
struct WhoAmI {
    user_name: String,
}

#[derive(Serialize)]
struct TagList {
    tags: Vec<Tag>,
}

#[derive(Serialize)]
struct Tag {
    id: String,
    tag: String,
}

pub(crate) async fn whoami(Extension(identity): Extension<Identity>) -> Response {
    json(&WhoAmI { user_name: identity.subject })
}

pub(crate) async fn tags(State(server): State<Arc<Server>>) -> Result<Response, ApiError> {
    let tags = server.store.tags().await.map_err(ApiError::ReadFailed)?;
    let tag =
        |tag: policy_store::AssignedTag| Tag { tag: tag.tag.to_hex(server.tag_length), id: tag.id };
    Ok(json(&TagList { tags: tags.into_iter().map(tag).collect() }))
}

/// Refuses in the words of 2016 what is refused inside.
pub(crate) async fn words(request: Request, next: Next) -> Response {
    let whoami = request.uri().path().ends_with("/whoami");
    let refused = next.run(request).await;
    let Some(error) = refused.extensions().get::<Arc<ApiError>>() else { return refused };
    let mut reworded =
        if whoami { error.whoami_of_2016().into_response() } else { error.response_of_2016() };
    *reworded.extensions_mut() = refused.extensions().clone();
    reworded
}

/// Leaves out the headers 2016 did not know, but for those a held poll is about, which only our own
/// agents ask for.
pub(crate) async fn bare(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let mut kept = HeaderMap::new();
    for name in [CONTENT_TYPE, ETAG, PREFERENCE_APPLIED] {
        if let Some(value) = response.headers_mut().remove(&name) {
            kept.insert(name, value);
        }
    }
    *response.headers_mut() = kept;
    response
}
