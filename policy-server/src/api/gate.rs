//! The checks before a handler of the external API: version, then token, then scope. A version that
//! does not exist is refused whoever asks (spec/policy-server.md §2.4).

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Uri},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{error::ApiError, version::Version};
use crate::{
    auth::{self, Access, Identity},
    metrics::Verdict,
    server::Server,
};

pub(crate) async fn pass(
    State((server, access)): State<(Arc<Server>, Access)>,
    mut request: Request,
    next: Next,
) -> Response {
    let (version, identity) = match check(&server, access, request.uri(), request.headers()).await {
        Ok(passed) => passed,
        Err(error) => return error.into_response(),
    };
    request.extensions_mut().insert(version);
    request.extensions_mut().insert(identity.clone());
    let mut response = next.run(request).await;
    response.extensions_mut().insert(identity);
    response
}

async fn check(
    server: &Server,
    access: Access,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(Version, Identity), ApiError> {
    let version = Version::of_path(uri.path())?;
    let token = auth::token_of(headers).ok_or(ApiError::NoToken)?;
    let verdict = server.verifier.verify(token).await;
    server.metrics.judged(Verdict::of(&verdict));
    let identity = verdict.map_err(ApiError::TokenRefused)?.identity;
    if access.admits(&identity, server.self_service) {
        Ok((version, identity))
    } else {
        Err(ApiError::ScopeMissing { provided: identity.scopes, allowed: access.scopes() })
    }
}
