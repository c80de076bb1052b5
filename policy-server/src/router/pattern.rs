use std::{borrow::Cow, fmt};

use crate::api::version;

/// The path of a row, matched as the existing system's router does (spec/policy-server.md §2.3):
/// byte by byte, but for the one segment that names a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pattern {
    before: &'static str,
    version: Versions,
    after: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Versions {
    /// The path names none, or always the same.
    Literal,
    /// Whatever the segment says once it is decoded, nothing included.
    Any,
    /// This one.
    Only(&'static str),
}

/// Stands for any version in the text of a pattern.
const ANY: &str = ":version";

impl Pattern {
    /// The pattern of a text such as `/networking/:version/external/policies`.
    pub(super) fn new(text: &'static str) -> Self {
        match text.split_once(ANY) {
            Some((before, after)) => Self { before, version: Versions::Any, after },
            None => Self { before: text, version: Versions::Literal, after: "" },
        }
    }

    /// The same for one version only; `None` if the pattern leaves none open.
    pub(super) fn at_version(self, version: &'static str) -> Option<Self> {
        (self.version == Versions::Any).then_some(Self { version: Versions::Only(version), ..self })
    }

    /// Whether `path`, as it was sent, is one of these.
    pub(super) fn matches(&self, path: &str) -> bool {
        self.matches_if(path, |segment| version::decoded(segment).is_some())
    }

    /// Whether the answer to OPTIONS on `path` counts this one: versions are then words.
    pub(super) fn matches_word(&self, path: &str) -> bool {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_word = |text: Cow<'_, str>| !text.is_empty() && text.chars().all(word);
        self.matches_if(path, |segment| version::decoded(segment).is_some_and(is_word))
    }

    fn matches_if(&self, path: &str, open: impl Fn(&str) -> bool) -> bool {
        let Self { before, version, after } = self;
        let inner = path.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        match (inner, version) {
            (None, _) => false,
            (Some(inner), Versions::Literal) => inner.is_empty(),
            (Some(inner), Versions::Only(version)) => inner == *version,
            (Some(inner), Versions::Any) => !inner.contains('/') && open(inner),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = match self.version {
            Versions::Literal => "",
            Versions::Any => ANY,
            Versions::Only(version) => version,
        };
        write!(f, "{}{version}{}", self.before, self.after)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICIES: &str = "/networking/:version/external/policies";

    #[test]
    fn any_version_is_one_segment_possibly_empty() {
        let pattern = Pattern::new(POLICIES);
        for path in ["v1", "", "v9", "%76%31", "a+b", "a&b=c", ":version", "%FF", "..", "é"] {
            assert!(pattern.matches(&format!("/networking/{path}/external/policies")), "{path:?}");
        }
        for path in [
            "/networking/v1/external/policies/",
            "/networking/external/policies",
            "/networking/v1/v1/external/policies",
            "/networking/v1/external/policie%73",
            "/networking/%/external/policies",
            "/networking/%7/external/policies",
            "/networking/%zz/external/policies",
            "/Networking/v1/external/policies",
            "//networking/v1/external/policies",
            "",
        ] {
            assert!(!pattern.matches(path), "{path:?}");
        }
    }

    #[test]
    fn a_path_without_version_matches_itself() {
        assert!(Pattern::new("/").matches("/"));
        assert!(!Pattern::new("/").matches(""));
        assert!(!Pattern::new("/").matches("//"));
        assert!(!Pattern::new("/networking").matches("/networking/"));
    }

    #[test]
    fn one_version_can_be_picked() {
        let pattern = Pattern::new(POLICIES).at_version("v1").unwrap();
        assert_eq!(pattern.to_string(), "/networking/v1/external/policies");
        assert!(pattern.matches("/networking/v1/external/policies"));
        assert!(!pattern.matches("/networking/v0/external/policies"));
        assert_eq!(pattern.at_version("v0"), None);
        assert_eq!(Pattern::new("/health").at_version("v1"), None);
    }

    #[test]
    fn for_options_a_version_is_a_word() {
        let pattern = Pattern::new(POLICIES);
        for (version, counts) in [
            ("v1", true),
            ("V_9", true),
            ("%76%31", true),
            ("", false),
            ("v1.5", false),
            ("é", false),
        ] {
            let path = format!("/networking/{version}/external/policies");
            assert_eq!(pattern.matches_word(&path), counts, "{version:?}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_matched_or_not(path in "/networking/.{0,8}/external/policies|.*") {
            let pattern = Pattern::new(POLICIES);
            prop_assert!(pattern.matches(&path) || !pattern.matches_word(&path));
        }
    }
}
