use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderName, HeaderValue},
    response::Response,
};
use policy::Policy;

use crate::{
    api::{
        body,
        caller::Caller,
        error::ApiError,
        json_text,
        list::list,
        openapi::{PolicyList, refusals},
        query,
        version::Version,
    },
    auth::Identity,
    metrics::Operation,
    server::Server,
    snapshot::Entry,
};

/// The version that holds a change, for whoever wants to wait until cells enforce it.
const REVISION: HeaderName = HeaderName::from_static("netman-revision");

/// List policies.
///
/// Administrators see all policies; others see those whose both ends are in spaces of theirs. The
/// order means nothing.
#[utoipa::path(
    get,
    path = "/networking/{version}/external/policies",
    operation_id = "listPolicies",
    tag = "policies",
    params(
        ("version" = Version, Path),
        (
            "id" = Option<Vec<String>>, Query, style = Form, explode = false,
            description = "Only policies with one of these apps at either end. The other parameters \
                           do not count then.",
        ),
        (
            "source_id" = Option<Vec<String>>, Query, style = Form, explode = false,
            description = "Only policies with one of these apps as their source.",
        ),
        (
            "dest_id" = Option<Vec<String>>, Query, style = Form, explode = false,
            description = "Only policies with one of these apps as their destination.",
        ),
    ),
    responses(
        (
            status = 200,
            description = "The policies, in the shape of the version.",
            body = PolicyList,
            examples(
                ("v1" = (summary = "Version 1", value = json!({"total_policies": 1, "policies": [{
                    "source": {"id": "38f08df0-19df-4439-b4e9-61096d4301ea"},
                    "destination": {
                        "id": "308e7ef1-63f1-4a6c-978c-2e527cbb1c36",
                        "protocol": "tcp",
                        "ports": {"start": 8080, "end": 8090},
                    },
                }]}))),
                ("v0" = (summary = "Version 0", value = json!({"total_policies": 1, "policies": [{
                    "source": {"id": "38f08df0-19df-4439-b4e9-61096d4301ea"},
                    "destination": {
                        "id": "308e7ef1-63f1-4a6c-978c-2e527cbb1c36",
                        "protocol": "tcp",
                        "port": 8080,
                    },
                }]}))),
            ),
        ),
        refusals::OfIndex,
    ),
    security(("token" = ["network.admin"]), ("token" = ["network.write"])),
)]
pub(crate) async fn index(
    State(server): State<Arc<Server>>,
    Extension(version): Extension<Version>,
    Extension(identity): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let filter = query::filter(query.as_deref());
    let snapshot = server.metrics.operation(Operation::of(&filter), server.current()).await?;
    let entries = visible(&server, &identity, snapshot.select(&filter)).await?;
    Ok(list(entries, version.form(), true))
}

/// Create policies.
///
/// All of them or, if one is refused, none. What exists already is no failure. Connections the
/// policies allow work as soon as cells enforce the revision in `Netman-Revision`, usually within
/// the second.
#[utoipa::path(
    post,
    path = "/networking/{version}/external/policies",
    operation_id = "createPolicies",
    tag = "policies",
    params(("version" = Version, Path)),
    request_body(
        content = PolicyList,
        examples(
            ("v1" = (summary = "Version 1", value = json!({"policies": [{
            "source": {"id": "38f08df0-19df-4439-b4e9-61096d4301ea"},
            "destination": {
                "id": "308e7ef1-63f1-4a6c-978c-2e527cbb1c36",
                "protocol": "tcp",
                "ports": {"start": 8080, "end": 8090},
            },
        }]}))),
            ("v0" = (summary = "Version 0", value = json!({"policies": [{
            "source": {"id": "38f08df0-19df-4439-b4e9-61096d4301ea"},
            "destination": {
                "id": "308e7ef1-63f1-4a6c-978c-2e527cbb1c36",
                "protocol": "tcp",
                "port": 8080,
            },
        }]}))),
        ),
    ),
    responses(
        (
            status = 200,
            description = "They exist.",
            body = Object,
            headers(("Netman-Revision" = String, description = "The version that holds the change.")),
            example = json!({}),
        ),
        refusals::OfCreate,
    ),
    security(("token" = ["network.admin"]), ("token" = ["network.write"])),
)]
pub(crate) async fn create(
    State(server): State<Arc<Server>>,
    Extension(version): Extension<Version>,
    Extension(identity): Extension<Identity>,
    Caller(actor): Caller,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::read(body).await.map_err(ApiError::BodyUnread)?;
    let policies = version.read(&body)?;
    may_change(&server, &identity, &policies).await?;
    may_have(&server, &identity, &policies).await?;
    let change = match server.store.create(&policies, &actor).await {
        Ok(change) => change,
        Err(error) => return Err(server.not_created(error).await),
    };
    tracing::info!(
        name: "create-policies.created-policies",
        {
            policies = told(&policies),
            policies.count = policies.len(),
            user.name = identity.subject,
            version = %change,
            http.id = actor.request,
        },
        "Created policies."
    );
    Ok(shown(&server, &change).await)
}

/// Delete policies.
///
/// All of them or, if one is refused, none. What does not exist is no failure. Protocol and ports must
/// be those of the policy: no range is cut. Connections that only these policies allowed are ended.
#[utoipa::path(
    post,
    path = "/networking/{version}/external/policies/delete",
    operation_id = "deletePolicies",
    tag = "policies",
    params(("version" = Version, Path)),
    request_body(
        content = PolicyList,
        examples(
            ("v1" = (summary = "Version 1", value = json!({"policies": [{
            "source": {"id": "38f08df0-19df-4439-b4e9-61096d4301ea"},
            "destination": {
                "id": "308e7ef1-63f1-4a6c-978c-2e527cbb1c36",
                "protocol": "tcp",
                "ports": {"start": 8080, "end": 8090},
            },
        }]}))),
            ("v0" = (summary = "Version 0", value = json!({"policies": [{
            "source": {"id": "38f08df0-19df-4439-b4e9-61096d4301ea"},
            "destination": {
                "id": "308e7ef1-63f1-4a6c-978c-2e527cbb1c36",
                "protocol": "tcp",
                "port": 8080,
            },
        }]}))),
        ),
    ),
    responses(
        (
            status = 200,
            description = "They do not exist.",
            body = Object,
            headers(("Netman-Revision" = String, description = "The version that holds the change.")),
            example = json!({}),
        ),
        refusals::OfDelete,
    ),
    security(("token" = ["network.admin"]), ("token" = ["network.write"])),
)]
pub(crate) async fn delete(
    State(server): State<Arc<Server>>,
    Extension(version): Extension<Version>,
    Extension(identity): Extension<Identity>,
    Caller(actor): Caller,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::read(body).await.map_err(ApiError::DeleteBodyUnread)?;
    let policies = version.read(&body)?;
    may_change(&server, &identity, &policies).await?;
    let change = server.store.delete(&policies, &actor).await.map_err(ApiError::DeleteFailed)?;
    tracing::info!(
        name: "delete-policies.deleted-policies",
        {
            policies = told(&policies),
            policies.count = policies.len(),
            user.name = identity.subject,
            version = %change,
            http.id = actor.request,
        },
        "Deleted policies."
    );
    Ok(shown(&server, &change).await)
}

/// How many policies of one request a line of the log tells of.
const TOLD: usize = 100;

/// The policies of a request for the log, which must say what changed as well as who did it.
fn told(policies: &[Policy]) -> String {
    let mut texts: Vec<_> = policies.iter().take(TOLD).map(ToString::to_string).collect();
    if policies.len() > TOLD {
        texts.push(format!("and {} more", policies.len() - TOLD));
    }
    texts.join(", ")
}

/// Those of `entries` the caller may see. Whose apps they are is for Cloud Controller to say; without
/// one, only administrators see anything.
async fn visible(
    server: &Server,
    identity: &Identity,
    entries: Vec<Arc<Entry>>,
) -> Result<Vec<Arc<Entry>>, ApiError> {
    if identity.is_admin() {
        return Ok(entries);
    }
    let Some(apps) = &server.apps else { return Ok(Vec::new()) };
    apps.visible(identity.guid.as_ref(), entries).await.map_err(ApiError::FilterFailed)
}

/// Whether the apps are the caller's.
async fn may_change(
    server: &Server,
    identity: &Identity,
    policies: &[Policy],
) -> Result<(), ApiError> {
    if identity.is_admin() {
        return Ok(());
    }
    let apps = server.apps.as_ref().ok_or(ApiError::AppsInaccessible)?;
    let may = apps.may_change(identity.guid.as_ref(), policies).await;
    if may.map_err(ApiError::CheckAccessFailed)? { Ok(()) } else { Err(ApiError::AppsInaccessible) }
}

/// Whether the apps may have so many policies.
async fn may_have(
    server: &Server,
    identity: &Identity,
    policies: &[Policy],
) -> Result<(), ApiError> {
    if identity.is_admin() {
        return Ok(());
    }
    let Some(apps) = &server.apps else { return Ok(()) };
    let snapshot = server.current().await.map_err(|e| ApiError::CheckQuotaFailed(Box::new(e)))?;
    let exceeded = apps.exceeds_quota(policies, &snapshot);
    if exceeded { Err(ApiError::QuotaExceeded) } else { Ok(()) }
}

/// Answers a change with no more than its version.
async fn shown(server: &Server, change: &policy::Version) -> Response {
    shown_in(json_text("{}".to_owned()), server, change).await
}

/// Answers a change once this server tells cells of it, so that callers read what they wrote. A change
/// it cannot tell of in time is stored all the same, and must not be called a failure.
pub(super) async fn shown_in(
    mut response: Response,
    server: &Server,
    change: &policy::Version,
) -> Response {
    if let Err(error) = server.feed.shows(change).await {
        tracing::error!(%error, "A change is stored, and cells are not told of it yet.");
    }
    let revision =
        HeaderValue::from_str(&change.to_string()).expect("a life has no special characters");
    response.headers_mut().insert(REVISION, revision);
    response
}
