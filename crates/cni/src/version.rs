use std::{fmt, str::FromStr};

use thiserror::Error;

/// A version of the CNI specification, from 0.1.0 up to, and without, 2.0.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpecVersion(u16, u16, u16);

/// The text names no version this crate speaks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown CNI version {0:?}, expected 0.1.0 to 1.x")]
pub struct UnknownVersion(pub String);

impl SpecVersion {
    /// What an absent version means.
    pub const FIRST: Self = Self(0, 1, 0);
    /// Results list interfaces and addresses from here on.
    pub const WITH_INTERFACES: Self = Self(0, 3, 0);
    /// DEL is told the result of ADD from here on.
    pub const WITH_RESULT_ON_DEL: Self = Self(0, 4, 0);

    /// The version a document states; none, or an empty one, is the first.
    pub fn stated(text: Option<&str>) -> Result<Self, UnknownVersion> {
        match text {
            None | Some("") => Ok(Self::FIRST),
            Some(text) => text.parse(),
        }
    }
}

impl FromStr for SpecVersion {
    type Err = UnknownVersion;

    fn from_str(text: &str) -> Result<Self, UnknownVersion> {
        let parse = || {
            let mut parts = text.split('.').map(|part| part.parse().ok());
            let version = Self(parts.next()??, parts.next()??, parts.next()??);
            parts.next().is_none().then_some(version)
        };
        parse()
            .filter(|version| (Self::FIRST..Self(2, 0, 0)).contains(version))
            .ok_or_else(|| UnknownVersion(text.to_owned()))
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_and_print_what_they_parse() {
        for text in ["0.1.0", "0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            assert_eq!(text.parse::<SpecVersion>().unwrap().to_string(), text);
        }
        assert!("0.4.0".parse::<SpecVersion>().unwrap() < "1.0.0".parse().unwrap());
        assert_eq!(SpecVersion::stated(Some("")), Ok(SpecVersion::FIRST));
    }

    #[test]
    fn versions_of_the_future_and_other_texts_are_refused() {
        for text in ["2.0.0", "0.0.1", "1.0", "1.0.0.0", "1.0.x", "one"] {
            assert!(text.parse::<SpecVersion>().is_err(), "{text}");
        }
    }
}
