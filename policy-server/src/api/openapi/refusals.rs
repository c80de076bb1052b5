//! How each route refuses. The rows hold the errors themselves: what they look like from outside is
//! asked of them, so that this document cannot differ from the answers.

use std::{collections::BTreeMap, sync::Arc};

use axum::http::StatusCode;
use gocompat::json::JsonError;
use policy::InvalidPolicy;
use policy_store::StoreError;
use utoipa::{
    IntoResponses,
    openapi::{
        ContentBuilder, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder,
        example::ExampleBuilder, schema::Type,
    },
};

use crate::{
    api::{body::BodyError, error::ApiError},
    auth::{Access, TokenRefused},
    cleaner::CleanupError,
    cloud_controller::CloudControllerError,
};

/// Of routes for administrators that only read.
pub(crate) struct ForAdmins;
/// Of routes for administrators that read from the database.
pub(crate) struct ForAdminsReading;
/// Of the audit trail.
pub(crate) struct OfAudit;
/// Of listing policies.
pub(crate) struct OfIndex;
/// Of creating policies.
pub(crate) struct OfCreate;
/// Of deleting policies.
pub(crate) struct OfDelete;
/// Of cleaning up policies.
pub(crate) struct OfCleanup;
/// Of asking for the database's health.
pub(crate) struct OfHealth;

/// One way to be refused.
struct Row {
    name: &'static str,
    when: &'static str,
    error: ApiError,
}

fn row(name: &'static str, when: &'static str, error: ApiError) -> Row {
    Row { name, when, error }
}

#[rustfmt::skip] // a table
fn gate(access: Access) -> Vec<Row> {
    let refused = TokenRefused::Invalid(Arc::new(std::io::Error::other("an example")));
    let missing = ApiError::ScopeMissing { provided: vec!["openid".to_owned()], allowed: access.scopes() };
    vec![
        row("no-token",      "The request has no token.",                          ApiError::NoToken),
        row("bad-token",     "The token has expired, or cannot be verified.",      ApiError::TokenRefused(refused)),
        row("missing-scope", "The token does not have a scope this needs.",        missing),
        row("version",       "The path names a version there is not.",             ApiError::VersionUnknown("v9".to_owned())),
        row("rate",          "You have asked too often, where rates are limited.", ApiError::TooManyRequests(2)),
    ]
}

#[rustfmt::skip] // a table
fn change() -> Vec<Row> {
    vec![
        row("unreadable",   "The body is not the JSON that is expected.",          ApiError::PoliciesUnparsed(JsonError::Eof)),
        row("invalid",      "A policy breaks a rule; the first one is told.",      ApiError::PoliciesInvalid(InvalidPolicy::NoStartPort)),
        row("inaccessible", "An app is in a space that is not yours.",             ApiError::AppsInaccessible),
        row("no-answer",    "Cloud Controller does not tell whose apps they are.", ApiError::CheckAccessFailed(no_answer().into())),
    ]
}

/// How it looks when Cloud Controller does not answer.
fn no_answer() -> CloudControllerError {
    CloudControllerError::Paged
}

fn reading() -> Row {
    row("database", "The database does not answer.", ApiError::ReadFailed(StoreError::Closed))
}

impl IntoResponses for ForAdmins {
    fn responses() -> Responses {
        responses(gate(Access::Admin))
    }
}

impl IntoResponses for ForAdminsReading {
    fn responses() -> Responses {
        let mut rows = gate(Access::Admin);
        rows.push(reading());
        responses(rows)
    }
}

impl IntoResponses for OfAudit {
    fn responses() -> Responses {
        let limit = ApiError::QueryInvalid { name: "limit", expected: "in range 1-1000" };
        let mut rows = gate(Access::Admin);
        rows.push(reading());
        rows.push(row("parameter", "A parameter is not what it must be.", limit));
        responses(rows)
    }
}

impl IntoResponses for OfIndex {
    fn responses() -> Responses {
        let mut rows = gate(Access::Write);
        rows.push(reading());
        rows.push(row(
            "no-answer",
            "Cloud Controller does not tell whose apps they are.",
            ApiError::FilterFailed(no_answer().into()),
        ));
        responses(rows)
    }
}

impl IntoResponses for OfCreate {
    fn responses() -> Responses {
        let (too_long, failed) = (BodyError::TooLong, StoreError::Closed);
        let mut rows = gate(Access::Write);
        rows.extend(change());
        rows.push(row(
            "quota",
            "An app would have more policies than it may.",
            ApiError::QuotaExceeded,
        ));
        rows.push(row(
            "quota-unknown",
            "The database does not tell how many an app has.",
            ApiError::CheckQuotaFailed(Box::new(ApiError::ReadFailed(StoreError::Closed))),
        ));
        rows.push(row(
            "too-long",
            "The body is too long, or ends early.",
            ApiError::BodyUnread(too_long),
        ));
        rows.push(row(
            "database",
            "The database does not answer, or no tag is left.",
            ApiError::CreateFailed(failed),
        ));
        responses(rows)
    }
}

impl IntoResponses for OfDelete {
    fn responses() -> Responses {
        let (too_long, failed) = (BodyError::TooLong, StoreError::Closed);
        let mut rows = gate(Access::Write);
        rows.extend(change());
        rows.push(row(
            "too-long",
            "The body is too long, or ends early.",
            ApiError::DeleteBodyUnread(too_long),
        ));
        rows.push(row("database", "The database does not answer.", ApiError::DeleteFailed(failed)));
        responses(rows)
    }
}

impl IntoResponses for OfCleanup {
    fn responses() -> Responses {
        let mut rows = gate(Access::Admin);
        rows.push(row(
            "cleanup",
            "Database or Cloud Controller do not answer, or their answers are hard to believe.",
            ApiError::CleanupFailed(CleanupError::Nobody),
        ));
        responses(rows)
    }
}

impl IntoResponses for OfHealth {
    fn responses() -> Responses {
        let failed = ApiError::PingFailed(StoreError::Closed);
        responses(vec![row("database", "The database does not answer.", failed)])
    }
}

type Responses = BTreeMap<String, RefOr<Response>>;

/// One response per status, with an example of each way to get it.
fn responses(rows: Vec<Row>) -> Responses {
    let told = |(status, rows): (StatusCode, Vec<Row>)| {
        let response = match name(status) {
            Some(name) => Ref::from_response_name(name).into(),
            None => response(status, &rows).into(),
        };
        (status.as_str().to_owned(), response)
    };
    by_status(rows).into_iter().map(told).collect()
}

/// The responses that are the same for all routes with a token, told once and by name.
pub(super) fn shared() -> Responses {
    let named = |(status, rows): (StatusCode, Vec<Row>)| {
        Some((name(status)?.to_owned(), response(status, &rows).into()))
    };
    by_status(gate(Access::Admin)).into_iter().filter_map(named).collect()
}

fn by_status(rows: Vec<Row>) -> BTreeMap<StatusCode, Vec<Row>> {
    let mut by_status: BTreeMap<StatusCode, Vec<Row>> = BTreeMap::new();
    for row in rows {
        by_status.entry(row.error.status()).or_default().push(row);
    }
    by_status
}

fn name(status: StatusCode) -> Option<&'static str> {
    match status {
        StatusCode::UNAUTHORIZED => Some("Unauthorized"),
        StatusCode::NOT_ACCEPTABLE => Some("NotAcceptable"),
        StatusCode::TOO_MANY_REQUESTS => Some("TooManyRequests"),
        _ => None,
    }
}

fn response(status: StatusCode, rows: &[Row]) -> Response {
    let whens: Vec<_> = rows.iter().map(|row| row.when).collect();
    let mut content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Refusal")));
    for Row { name, when, error } in rows {
        let value = serde_json::json!({ "error": error.to_string() });
        let example = ExampleBuilder::new().summary(*when).value(Some(value));
        content = content.examples_from_iter([(*name, example)]);
    }
    let response = ResponseBuilder::new()
        .description(whens.join(" "))
        .content("application/json", content.build());
    match status {
        StatusCode::UNAUTHORIZED => {
            let header = header(Type::String, "`Bearer`.");
            response.header("WWW-Authenticate", header).build()
        }
        StatusCode::TOO_MANY_REQUESTS => {
            let header = header(Type::Integer, "After how many seconds to try again.");
            response.header("Retry-After", header).build()
        }
        _ => response.build(),
    }
}

fn header(kind: Type, description: &str) -> utoipa::openapi::Header {
    let schema = ObjectBuilder::new().schema_type(kind).build();
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}
