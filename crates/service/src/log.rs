//! Logs: one JSON object per line on standard output, a sentence with fields.

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// Starts logging at `level` (`debug`, `info`, `warn`, `error`; anything else means `info`). The
/// environment variable `RUST_LOG` overrides it. Calling it twice, as tests do, changes nothing.
pub fn init(level: Option<&str>) {
    let default = match level.unwrap_or_default() {
        "debug" => LevelFilter::DEBUG,
        "warn" => LevelFilter::WARN,
        // There is nothing above error here; the predecessors had `fatal`.
        "error" | "fatal" => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    };
    let filter = EnvFilter::builder().with_default_directive(default.into()).from_env_lossy();
    // An error means that a subscriber is in place already.
    let _ = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stdout)
        .try_init();
}

/// An error and all its causes on one line, outermost first: `doing this: because: because`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some libraries repeat their cause in their own text.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("opening the store")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_chain_names_every_cause_once() {
        let error = Outer(std::io::Error::other("disk full"));
        assert_eq!(chain(&error), "opening the store: disk full");
    }
}
