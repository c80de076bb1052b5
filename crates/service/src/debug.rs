//! What the debug listener of every daemon offers (spec/policy-server.md §12.2).

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    routing::any,
};

use crate::log::{Level, LevelSwitch};

/// The longest word for a level has a handful of letters.
const LONGEST: usize = 64;

/// `/log-level` sets the level to what the body of a request says, whatever its method. What is no
/// level is ignored.
pub fn routes(switch: LevelSwitch) -> Router {
    Router::new().route("/log-level", any(log_level)).with_state(switch)
}

async fn log_level(State(switch): State<LevelSwitch>, body: Body) {
    let Ok(word) = to_bytes(body, LONGEST).await else { return };
    if let Some(level) = level(&word) {
        switch.set(level);
        tracing::info!(level = %level, "Set the log level.");
    }
}

fn level(word: &[u8]) -> Option<Level> {
    Some(match word {
        b"debug" | b"DEBUG" | b"d" | b"0" => Level::Debug,
        b"info" | b"INFO" | b"i" | b"1" => Level::Info,
        b"error" | b"ERROR" | b"e" | b"2" => Level::Error,
        b"fatal" | b"FATAL" | b"f" | b"3" => Level::Fatal,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_has_four_spellings() {
        for word in ["debug", "DEBUG", "d", "0"] {
            assert_eq!(level(word.as_bytes()), Some(Level::Debug), "{word}");
        }
        assert_eq!(level(b"2"), Some(Level::Error));
        for word in ["", "Debug", "warn", "debug\n", "4"] {
            assert_eq!(level(word.as_bytes()), None, "{word}");
        }
    }
}
