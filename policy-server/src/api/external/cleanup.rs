use std::sync::Arc;

use axum::{extract::State, response::Response};
use policy::wire::{line::Form, v1};

use super::policies::shown_in;
use crate::{
    api::{caller::Caller, error::ApiError, list::list, openapi::refusals, version::Version},
    cleaner,
    server::Server,
};

/// Delete policies of apps that are gone.
///
/// The server does so by itself every so often; this does it now, and tells which policies it deleted,
/// in the shape of version 1 whatever the path says. A body is ignored. Nothing is deleted when Cloud
/// Controller does not answer clearly, or knows none of many apps.
#[utoipa::path(
    post,
    path = "/networking/{version}/external/policies/cleanup",
    operation_id = "cleanUpPolicies",
    tag = "policies",
    params(("version" = Version, Path)),
    responses(
        (
            status = 200,
            description = "They do not exist.",
            body = v1::PolicyList,
            headers(("Netman-Revision" = String, description = "The version that holds the change, if any.")),
            example = json!({"total_policies": 1, "policies": [{
                "source": {"id": "38f08df0-19df-4439-b4e9-61096d4301ea"},
                "destination": {
                    "id": "308e7ef1-63f1-4a6c-978c-2e527cbb1c36",
                    "protocol": "tcp",
                    "ports": {"start": 8080, "end": 8090},
                },
            }]}),
        ),
        refusals::OfCleanup,
    ),
    security(("token" = ["network.admin"])),
)]
pub(crate) async fn clean_up(
    State(server): State<Arc<Server>>,
    Caller(actor): Caller,
) -> Result<Response, ApiError> {
    let cleaned = cleaner::clean(&server, &actor).await.map_err(ApiError::CleanupFailed)?;
    let response = list(cleaned.entries, Form::V1, true);
    Ok(match &cleaned.version {
        Some(version) => shown_in(response, &server, version).await,
        None => response,
    })
}
