use policy::{
    Policy,
    wire::{line::Form, v0, v1},
};

use super::error::ApiError;

/// The versions of the external API (spec/policy-server.md §2.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// One port per policy.
    V0,
    /// Ranges.
    V1,
}

impl Version {
    /// The version a path like `/networking/v1/external/…` asks for.
    pub(crate) fn of_path(path: &str) -> Result<Self, ApiError> {
        match path.split('/').nth(2).unwrap_or_default() {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_match_exactly() {
        let of = |version: &str| Version::of_path(&format!("/networking/{version}/external/tags"));
        assert_eq!(of("v0").unwrap(), Version::V0);
        assert_eq!(of("v1").unwrap(), Version::V1);
        for other in ["v2", "V1", "1", "v1 ", "%76%30"] {
            let text = of(other).unwrap_err().to_string();
            assert_eq!(text, format!("api version '{other}' not supported"));
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
