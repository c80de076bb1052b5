use std::fmt;

/// A key of an object that was read as a struct which has no such field: misspelt, most likely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// Where it is, such as `shadow.removal` or `servers[0].prot`.
    pub key: String,
    /// Likewise, the one that may have been meant.
    pub meant: Option<String>,
}

/// How alike two keys are, from 0 to 1, of which one may be meant by the other.
const ALIKE: f64 = 0.85;

impl Stray {
    /// `key` where only `known` ones are of use; `place` says where a key is.
    pub(super) fn of(key: &str, known: &[&str], place: impl Fn(&str) -> String) -> Self {
        let plain = |text: &str| text.to_ascii_lowercase().replace(['_', '-'], "");
        let likeness = |field: &str| strsim::jaro_winkler(&plain(key), &plain(field));
        let alike = known.iter().map(|field| (likeness(field), *field));
        let alike = alike.filter(|(likeness, _)| *likeness > ALIKE);
        let nearest = alike.max_by(|(one, _), (other, _)| one.total_cmp(other));
        Self { key: place(key), meant: nearest.map(|(_, field)| place(field)) }
    }
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no key of this file", self.key)?;
        match &self.meant {
            Some(meant) => write!(f, "; did you mean `{meant}`?"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use crate::json::from_slice_noting;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct File {
        backend: String,
        state_file: String,
        policy_server_url: String,
        policy_server_urls: Vec<String>,
        shadow: Shadow,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Shadow {
        removals: bool,
    }

    fn stray(text: &str) -> Vec<String> {
        let for_others = ["vni", "loggregator"];
        let (_, strays) = from_slice_noting::<File>(text.as_bytes(), &for_others).unwrap();
        strays.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_misspelt_key_is_told_with_the_one_that_was_meant() {
        let of = |key: &str| stray(&format!("{{\"{key}\":null}}")).remove(0);
        for (key, meant) in [
            ("backened", "backend"),
            ("statefile", "state_file"),
            ("state-file", "state_file"),
            ("policy_server_ulr", "policy_server_url"),
        ] {
            let expected = format!("`{key}` is no key of this file; did you mean `{meant}`?");
            assert_eq!(of(key), expected);
        }
        assert_eq!(of("colour"), "`colour` is no key of this file");
        let nested = r#"{"shadow":{"removal":true,"removals":true}}"#;
        let expected = "`shadow.removal` is no key of this file; did you mean `shadow.removals`?";
        assert_eq!(stray(nested), [expected]);
    }

    #[test]
    fn what_is_known_or_for_other_programs_is_passed_over() {
        let text =
            r#"{"Backend":"","VNI":1,"loggregator":{"loggregator_api_port":1},"shadow":null}"#;
        assert_eq!(stray(text), [""; 0]);
    }
}
