//! JSON as Go's `encoding/json` reads and writes it (spec/policy-server.md §2.6, spec/cell.md §A.2).
//!
//! Struct keys match whatever their case, `null` leaves a field at its default, the last of several
//! equal keys wins, unknown keys are ignored, invalid UTF-8 becomes U+FFFD, integers must be written
//! as integers. Give structs `#[serde(default)]`, since any key may be missing.

mod node;

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use node::Node;

/// Why a text is not the JSON that was expected.
#[derive(Debug, Error)]
pub enum JsonError {
    /// The text ends too early; Go's words, since clients show them.
    #[error("unexpected end of JSON input")]
    Eof,
    /// The text is not JSON.
    #[error("{0}")]
    Invalid(#[source] serde_json::Error),
    /// A value is not what was expected in its place.
    #[error("{path}: {source}")]
    Shape {
        /// Where, such as `policies[0].destination.ports.start`; `.` for the whole.
        path: String,
        /// What is there, and what was expected.
        source: serde_json::Error,
    },
}

/// Reads exactly one JSON value; anything but white space after it is an error.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    let text = String::from_utf8_lossy(bytes);
    shape(serde_json::from_str(&text).map_err(JsonError::new)?)
}

/// Reads the first JSON value and leaves whatever follows unread, as Go's stream decoder does.
pub fn from_slice_prefix<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    let text = String::from_utf8_lossy(bytes);
    let mut values = serde_json::Deserializer::from_str(&text).into_iter::<Node>();
    shape(values.next().ok_or(JsonError::Eof)?.map_err(JsonError::new)?)
}

fn shape<T: DeserializeOwned>(node: Node) -> Result<T, JsonError> {
    serde_path_to_error::deserialize(node).map_err(|error| {
        let path = error.path().to_string();
        JsonError::Shape { path, source: error.into_inner() }
    })
}

/// Writes JSON without white space, with `<`, `>`, `&` and the two line separators escaped as Go
/// does. Only strings can hold those characters, so escaping them in the text is safe.
///
/// # Panics
/// If `value` is a map with keys that are not text, or its `Serialize` fails by itself.
pub fn to_string<T: Serialize>(value: &T) -> String {
    let plain = serde_json::to_string(value).expect("wire types have text keys and cannot fail");
    let special = |c| matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
    if !plain.contains(special) {
        return plain;
    }
    let mut escaped = String::with_capacity(plain.len() + 16);
    for c in plain.chars() {
        if special(c) {
            escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

impl JsonError {
    fn new(error: serde_json::Error) -> Self {
        if error.is_eof() { Self::Eof } else { Self::Invalid(error) }
    }
}

#[cfg(test)]
mod tests;
