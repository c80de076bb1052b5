//! The only file that knows how failures look from outside: statuses and texts
//! (spec/policy-server.md §2.5, spec/cell.md §E.2).

mod of_2016;

use std::sync::Arc;

use axum::{
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use gocompat::json::JsonError;
use policy::{InvalidPolicy, wire::lease::UnreadableLease};
use policy_store::{LeaseError, StoreError};
use thiserror::Error;

use super::body::BodyError;
use crate::{apps::AppsError, auth::TokenRefused, cleaner::CleanupError, snapshot::feed::Behind};

/// Why a request is not answered as asked. The text is the caller's; the cause is for the log.
#[derive(Debug, Error)]
pub(crate) enum ApiError {
    #[error("failed reading request body")]
    BodyUnread(#[source] BodyError),
    /// The same, where the existing system has other words for it.
    #[error("invalid request body")]
    DeleteBodyUnread(#[source] BodyError),
    #[error("failed parsing request body")]
    BodyUnparsed(#[source] JsonError),
    #[error("mapper: unmarshal json: {}", .0.in_go_words())]
    PoliciesUnparsed(JsonError),
    #[error("mapper: validate policies: {0}")]
    PoliciesInvalid(InvalidPolicy),
    #[error("missing authorization header")]
    NoToken,
    #[error("failed to verify token with uaa")]
    TokenRefused(#[source] TokenRefused),
    #[error(
        "provided scopes [{}] do not include allowed scopes [{}]",
        provided.join(" "), allowed.join(" ")
    )]
    ScopeMissing { provided: Vec<String>, allowed: &'static [&'static str] },
    #[error("one or more applications cannot be found or accessed")]
    AppsInaccessible,
    #[error("policy quota exceeded")]
    QuotaExceeded,
    #[error("check access failed")]
    CheckAccessFailed(#[source] AppsError),
    #[error("check quota failed")]
    CheckQuotaFailed(#[source] Box<ApiError>),
    #[error("filter policies failed")]
    FilterFailed(#[source] AppsError),
    #[error("policies cleanup failed")]
    CleanupFailed(#[source] CleanupError),
    /// With the seconds after which the next request has a chance.
    #[error("too many requests, try again in {0} s")]
    TooManyRequests(u64),
    #[error("api version '{0}' not supported")]
    VersionUnknown(String),
    #[error("database create failed")]
    CreateFailed(#[source] StoreError),
    /// No database is to blame for a name that none can keep.
    #[error("{0}")]
    NameUnusable(StoreError),
    #[error("database delete failed")]
    DeleteFailed(#[source] StoreError),
    #[error("database read failed")]
    ReadFailed(#[source] StoreError),
    #[error("database read failed")]
    Behind(#[source] Behind),
    #[error("invalid value for '{0}' parameter")]
    ParameterInvalid(&'static str),
    /// The same, where no existing caller expects a 500.
    #[error("invalid value for '{name}' parameter, must be {expected}")]
    QueryInvalid { name: &'static str, expected: &'static str },
    #[error("check database failed")]
    PingFailed(#[source] StoreError),
    #[error("acquiring a lease: underlay_ip {0:?} is not an IPv4 address")]
    AcquireFor(String),
    #[error("releasing a lease: underlay_ip {0:?} is not an IPv4 address")]
    ReleaseFor(String),
    #[error("invalid lease: {0}")]
    LeaseUnreadable(UnreadableLease),
    #[error("{0}")]
    LeaseRefused(LeaseError),
}

/// The text and causes of an error, for the log line of the request.
#[derive(Clone)]
pub(crate) struct Explanation(pub String);

impl ApiError {
    fn blaming_whoever_is_to_blame(self) -> Self {
        match self {
            Self::CreateFailed(error @ StoreError::Nul { .. }) => Self::NameUnusable(error),
            other => other,
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::BodyUnread(_)
            | Self::DeleteBodyUnread(_)
            | Self::BodyUnparsed(_)
            | Self::PoliciesUnparsed(_)
            | Self::PoliciesInvalid(_)
            | Self::NameUnusable(_)
            | Self::QueryInvalid { .. }
            | Self::ReleaseFor(_) => StatusCode::BAD_REQUEST,
            Self::NoToken | Self::TokenRefused(_) => StatusCode::UNAUTHORIZED,
            Self::ScopeMissing { .. } | Self::AppsInaccessible | Self::QuotaExceeded => {
                StatusCode::FORBIDDEN
            }
            Self::TooManyRequests(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::VersionUnknown(_) => StatusCode::NOT_ACCEPTABLE,
            // Not 500: cells take a conflict as final, and would ask again for ever otherwise.
            Self::LeaseUnreadable(_) => StatusCode::CONFLICT,
            Self::LeaseRefused(error) => match error {
                LeaseError::NoneAvailable | LeaseError::Mismatch | LeaseError::Taken(_) => {
                    StatusCode::CONFLICT
                }
                LeaseError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
            },
            Self::CheckAccessFailed(_)
            | Self::CheckQuotaFailed(_)
            | Self::FilterFailed(_)
            | Self::CleanupFailed(_)
            | Self::CreateFailed(_)
            | Self::DeleteFailed(_)
            | Self::ReadFailed(_)
            | Self::Behind(_)
            // A caller's fault, but clients know it as the server's (§5.4).
            | Self::ParameterInvalid(_)
            | Self::PingFailed(_)
            // So is this one (spec/cell.md §E.2).
            | Self::AcquireFor(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// The response carries the error along, for whoever has other words for it.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let error = self.blaming_whoever_is_to_blame();
        let status = error.status();
        let mut response = json_error(status, &error.to_string()).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Self::TooManyRequests(seconds) = error {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(Explanation(service::log::chain(&error)));
        response.extensions_mut().insert(Arc::new(error));
        response
    }
}

fn json_error(status: StatusCode, text: &str) -> impl IntoResponse + use<> {
    const JSON: [(HeaderName, &str); 1] = [(CONTENT_TYPE, "application/json")];
    (status, JSON, body(text))
}

/// One space after the colon: scripts compare these bodies as text. The text is escaped, which the
/// existing system forgets (§16).
fn body(text: &str) -> String {
    format!("{{\"error\": {}}}", gocompat::json::to_string(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_into_valid_json() {
        let body = body("unknown \"key\" <a>\n");
        assert_eq!(body, r#"{"error": "unknown \"key\" \u003ca\u003e\n"}"#);
    }

    #[test]
    fn scopes_are_listed_in_brackets() {
        let missing = |provided: &[&str], allowed| ApiError::ScopeMissing {
            provided: provided.iter().map(|&scope| scope.to_owned()).collect(),
            allowed,
        };
        assert_eq!(
            missing(&["a", "b"], &["network.admin", "network.write"]).to_string(),
            "provided scopes [a b] do not include allowed scopes [network.admin network.write]"
        );
        assert_eq!(
            missing(&[], &["network.admin"]).to_string(),
            "provided scopes [] do not include allowed scopes [network.admin]"
        );
    }
}
