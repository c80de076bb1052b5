//! JSON as Go's `encoding/json` reads and writes it (spec/policy-server.md §2.6, spec/cell.md §A.2).
//!
//! Struct keys match whatever their case, `null` leaves a field at its default, the last of several
//! equal keys wins, unknown keys are ignored ([`from_slice_noting`] tells them), invalid UTF-8 becomes U+FFFD, integers must be written
//! as integers. Give structs `#[serde(default)]`, since any key may be missing.

mod fault;
mod go_type;
mod node;
mod stray;
mod syntax;

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use node::{Node, Strays};

pub use fault::Fault;
pub use stray::Stray;

/// Why a text is not the JSON that was expected, for people who look for the place; what Go would
/// say is told by [`in_go_words`](Self::in_go_words).
#[derive(Debug, Error)]
pub enum JsonError {
    /// The text ends too early.
    #[error("unexpected end of JSON input")]
    Eof,
    /// The text is not JSON.
    #[error("{source}")]
    Invalid {
        /// What is wrong, by line and column.
        source: serde_json::Error,
        /// What is wrong, as Go says it.
        complaint: Option<String>,
    },
    /// A value is not what was expected in its place.
    #[error("{}{source}", place(.path))]
    Shape {
        /// Where, such as `policies[0].destination.ports.start`; `.` for the whole.
        path: String,
        /// What is there, and what was expected.
        source: Box<Fault>,
    },
    /// Several values are not.
    #[error("{}", join(.0))]
    Shapes(Vec<JsonError>),
}

fn place(path: &str) -> String {
    if path == "." { String::new() } else { format!("{path}: ") }
}

fn join(errors: &[JsonError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Reads exactly one JSON value; anything but white space after it is an error.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    let text = String::from_utf8_lossy(bytes);
    shape(serde_json::from_str(&text).map_err(|error| JsonError::new(error, bytes))?)
}

/// [`from_slice`], and the keys it passed over because no struct has a field of that name, but for those
/// whose path is in `for_others`. An error tells of every key of the whole whose value is of no use, not of
/// the first alone.
pub fn from_slice_noting<T: DeserializeOwned>(
    bytes: &[u8],
    for_others: &[&str],
) -> Result<(T, Vec<Stray>), JsonError> {
    let text = String::from_utf8_lossy(bytes);
    let node: Node = serde_json::from_str(&text).map_err(|error| JsonError::new(error, bytes))?;
    let (strays, mut noting) = (Strays::default(), node.clone());
    noting.noting("", &strays);
    let value = shape(noting).map_err(|first| all_of::<T>(first, node))?;
    let is_for_us = |stray: &Stray| !for_others.iter().any(|of| stray.key.eq_ignore_ascii_case(of));
    Ok((value, strays.take().into_iter().filter(is_for_us).collect()))
}

/// Beside the `first` error those of the other keys of the whole: it is read again without those that are
/// known to be wrong.
fn all_of<T: DeserializeOwned>(first: JsonError, mut node: Node) -> JsonError {
    let mut errors = vec![first];
    while errors.last().and_then(JsonError::key).is_some_and(|key| node.remove(key)) {
        match shape::<T>(node.clone()) {
            Ok(_) => break,
            Err(error) => errors.push(error),
        }
    }
    if errors.len() == 1 { errors.remove(0) } else { JsonError::Shapes(errors) }
}

/// Reads the first JSON value and leaves whatever follows unread, as Go's stream decoder does.
pub fn from_slice_prefix<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    let text = String::from_utf8_lossy(bytes);
    let mut values = serde_json::Deserializer::from_str(&text).into_iter::<Node>();
    let first = values.next().ok_or(JsonError::Eof)?;
    shape(first.map_err(|error| JsonError::new(error, bytes))?)
}

fn shape<T: DeserializeOwned>(node: Node) -> Result<T, JsonError> {
    serde_path_to_error::deserialize(node).map_err(|error| {
        let path = error.path().to_string();
        JsonError::Shape { path, source: Box::new(error.into_inner()) }
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
    /// The text Go's decoder would give. Clients and their tests compare it with what the existing
    /// system says.
    pub fn in_go_words(&self) -> String {
        match self {
            Self::Eof => None,
            Self::Invalid { complaint, .. } => complaint.clone(),
            Self::Shape { source, .. } => source.in_go_words(),
            Self::Shapes(errors) => errors.first().map(Self::in_go_words),
        }
        .unwrap_or_else(|| self.to_string())
    }

    /// The key of the whole below which a value is not what was expected.
    fn key(&self) -> Option<&str> {
        let Self::Shape { path, .. } = self else { return None };
        path.split(['.', '[']).next().filter(|key| !key.is_empty())
    }

    fn new(source: serde_json::Error, bytes: &[u8]) -> Self {
        if source.is_eof() {
            return Self::Eof;
        }
        Self::Invalid { source, complaint: syntax::complaint(bytes) }
    }
}

#[cfg(test)]
mod tests;
