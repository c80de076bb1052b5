use std::{fmt, time::Duration};

use policy::TagLength;
use reqwest::Url;
use service::log::Level;
use thiserror::Error;

/// Every mistake of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Faults(Vec<String>);

/// Collects mistakes while values are taken out of a raw configuration. After a mistake it hands out
/// a stand-in, which never leaves, because [`Check::finish`] then refuses.
#[derive(Debug, Default)]
pub(super) struct Check {
    faults: Vec<String>,
}

const ZERO: &str = "zero value";
const TOO_SMALL: &str = "less than min";
const TOO_LARGE: &str = "greater than max";

impl Check {
    /// Notes a mistake in `field`, by the name Go knows it by.
    pub(super) fn fault(&mut self, field: &str, what: impl fmt::Display) {
        self.faults.push(format!("{field}: {what}"));
    }

    /// A text that must be there.
    pub(super) fn text(&mut self, field: &str, value: String) -> String {
        if value.is_empty() {
            self.fault(field, ZERO);
        }
        value
    }

    /// A whole number of at least `least` that fits where it is needed.
    pub(super) fn at_least<N: TryFrom<i64> + Default>(
        &mut self,
        field: &str,
        value: i64,
        least: i64,
    ) -> N {
        if value < least {
            self.fault(field, TOO_SMALL);
            return N::default();
        }
        N::try_from(value).unwrap_or_else(|_| {
            self.fault(field, TOO_LARGE);
            N::default()
        })
    }

    pub(super) fn port(&mut self, field: &str, value: i64) -> u16 {
        if value == 0 {
            self.fault(field, ZERO);
            return 0;
        }
        self.at_least(field, value, 1)
    }

    pub(super) fn seconds(&mut self, field: &str, value: i64, least: i64) -> Duration {
        Duration::from_secs(self.at_least(field, value, least))
    }

    pub(super) fn tag_length(&mut self, field: &str, value: i64) -> TagLength {
        if value == 0 {
            self.fault(field, ZERO);
            return TagLength::DEFAULT;
        }
        TagLength::new(value).unwrap_or_else(|error| {
            self.fault(field, error);
            TagLength::DEFAULT
        })
    }

    /// An address on the web that must be there.
    pub(super) fn url(&mut self, field: &str, value: &str) -> Url {
        let stand_in = || Url::parse("http://127.0.0.1").expect("a constant address is one");
        if value.is_empty() {
            self.fault(field, ZERO);
            return stand_in();
        }
        // The text may hold credentials, so it is not repeated.
        match Url::parse(value) {
            Ok(url) if url.has_host() && matches!(url.scheme(), "http" | "https") => url,
            _ => {
                self.fault(field, "not an http or https address");
                stand_in()
            }
        }
    }

    pub(super) fn log_level(&mut self, value: &str) -> Level {
        value.parse().unwrap_or_else(|error| {
            self.fault("LogLevel", error);
            Level::default()
        })
    }

    /// One of a few words, each of which stands for a value; the first is what nothing stands for.
    pub(super) fn word<T: Copy>(&mut self, field: &str, value: &str, words: &[(&str, T)]) -> T {
        let (_, default) = words[0];
        if value.is_empty() {
            return default;
        }
        let known = words.iter().find(|(word, _)| *word == value);
        known.map_or_else(
            || {
                let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                self.fault(field, format_args!("must be one of {}", words.join(", ")));
                default
            },
            |(_, meaning)| *meaning,
        )
    }

    /// The value that was made of what was checked, if there was no mistake.
    pub(super) fn finish<T>(self, value: T) -> Result<T, Faults> {
        if self.faults.is_empty() { Ok(value) } else { Err(Faults(self.faults)) }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}
