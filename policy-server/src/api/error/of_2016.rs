use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use policy::InvalidPolicy;

use super::{ApiError, json_error};

/// How failures looked in 2016 (spec/policy-server.md §2.5, §2.8). What 2016 did not know looks as it
/// does today.
impl ApiError {
    pub(crate) fn response_of_2016(&self) -> Response {
        let (status, text) = self.of_2016();
        json_error(status, &text).into_response()
    }

    /// whoami asked by itself who was calling, and never said what was wrong.
    pub(crate) fn whoami_of_2016(&self) -> StatusCode {
        match self {
            Self::TokenRefused(_) => StatusCode::BAD_REQUEST,
            _ => self.of_2016().0,
        }
    }

    fn of_2016(&self) -> (StatusCode, String) {
        let bad_request = |text: &str| (StatusCode::BAD_REQUEST, text.to_owned());
        match self {
            Self::BodyUnread(_) | Self::DeleteBodyUnread(_) => {
                bad_request("invalid request body format passed to API should be JSON")
            }
            Self::PoliciesUnparsed(_) => bad_request("invalid values passed to API"),
            Self::PoliciesInvalid(rule) => bad_request(&rule_of_2016(rule)),
            Self::TokenRefused(_) => (StatusCode::FORBIDDEN, self.to_string()),
            Self::ScopeMissing { .. } => {
                (StatusCode::FORBIDDEN, "token missing required scope network.admin".to_owned())
            }
            other => (other.status(), other.to_string()),
        }
    }
}

fn rule_of_2016(rule: &InvalidPolicy) -> String {
    let port = |port: i64| format!("invalid destination port value {port}, must be 1-65535");
    match rule {
        InvalidPolicy::Port(value) => port(*value),
        InvalidPolicy::NoPort => port(0),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::body::BodyError;

    #[test]
    fn a_body_that_does_not_arrive_is_told_in_one_way() {
        let text = "invalid request body format passed to API should be JSON";
        for error in [
            ApiError::BodyUnread(BodyError::TooSlow),
            ApiError::DeleteBodyUnread(BodyError::TooSlow),
        ] {
            assert_eq!(error.of_2016(), (StatusCode::BAD_REQUEST, text.to_owned()));
        }
    }
}
