use std::borrow::Cow;

use policy::{
    Policy,
    wire::{line::Form, v0, v1},
};
use utoipa::ToSchema;

use super::error::ApiError;

/// The versions of the external API (spec/policy-server.md §2.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "lowercase", description = "The version of the API.")]
pub(crate) enum Version {
    /// One port per policy.
    V0,
    /// Ranges.
    V1,
}

impl Version {
    /// The version a path like `/networking/v1/external/…` asks for.
    pub(crate) fn of_path(path: &str) -> Result<Self, ApiError> {
        match &*named_in(path) {
            "v0" => Ok(Self::V0),
            "v1" => Ok(Self::V1),
            other => Err(ApiError::VersionUnknown(other.to_owned())),
        }
    }

    /// The policies a body asks to create or delete.
    pub(crate) fn read(self, body: &[u8]) -> Result<Vec<Policy>, ApiError> {
        let valid = match self {
            Self::V0 => gocompat::json::from_slice::<v0::PolicyList>(body)
                .map_err(ApiError::PoliciesUnparsed)?
                .validate(),
            Self::V1 => gocompat::json::from_slice::<v1::PolicyList>(body)
                .map_err(ApiError::PoliciesUnparsed)?
                .validate(),
        };
        valid.map_err(ApiError::PoliciesInvalid)
    }

    /// How policies are listed. Version 0 leaves out what it cannot say.
    pub(crate) fn form(self) -> Form {
        match self {
            Self::V0 => Form::V0,
            Self::V1 => Form::V1,
        }
    }
}

/// The version a path like `/networking/v1/…` names, whether there is such a version or not.
pub(crate) fn named_in(path: &str) -> Cow<'_, str> {
    path.split('/').nth(2).and_then(decoded).unwrap_or_default()
}

/// What a segment of a path says, by the rules of Go's router: those of query strings. `None` if a
/// percent sign is not followed by two digits.
pub(crate) fn decoded(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains(['%', '+']) {
        return Some(segment.into());
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut text = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        text.push(match byte {
            b'%' => 16 * digit(bytes.next()?)? + digit(bytes.next()?)?,
            b'+' => b' ',
            byte => byte,
        });
    }
    Some(String::from_utf8_lossy(&text).into_owned().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_match_exactly() {
        let of = |version: &str| Version::of_path(&format!("/networking/{version}/external/tags"));
        assert_eq!(of("v0").unwrap(), Version::V0);
        assert_eq!(of("v1").unwrap(), Version::V1);
        assert_eq!(of("%76%30").unwrap(), Version::V0);
        for other in ["v2", "V1", "1", "v1 ", ""] {
            let text = of(other).unwrap_err().to_string();
            assert_eq!(text, format!("api version '{other}' not supported"));
        }
    }

    #[test]
    fn segments_are_decoded_like_queries() {
        for (segment, text) in
            [("v1", "v1"), ("a%20b+c", "a b c"), ("%76", "v"), ("", ""), ("%ff", "\u{fffd}")]
        {
            assert_eq!(decoded(segment).as_deref(), Some(text));
        }
        for bad in ["%", "%7", "%zz", "v%+1"] {
            assert_eq!(decoded(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(body: Vec<u8>) {
            for version in [Version::V0, Version::V1] {
                if let Ok(policies) = version.read(&body) {
                    prop_assert!(!policies.is_empty());
                }
            }
        }
    }
}
