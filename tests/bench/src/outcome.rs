//! Numbers that were aimed for, and how those that came out compare.

use serde::Serialize;

/// A number that was aimed for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Outcome {
    pub name: String,
    pub value: f64,
    pub unit: String,
    pub target: String,
    pub ok: bool,
}

/// What a number should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    pub(crate) fn judge(self, name: &str, value: f64, unit: &str) -> Outcome {
        let (target, ok) = match self {
            Self::AtLeast(least) => (format!(">= {least}"), value >= least),
            Self::AtMost(most) => (format!("<= {most}"), value <= most),
        };
        let name = name.replace([' ', ','], "_").replace("__", "_");
        Outcome { name, value: rounded(value), unit: unit.to_owned(), target, ok }
    }
}

/// To three decimals; more is noise.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
