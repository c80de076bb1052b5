use std::{fmt, str::FromStr};

use thiserror::Error;
use tracing_subscriber::filter::LevelFilter;

/// How important a line must be to be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name is the word for it")]
pub enum Level {
    Debug,
    #[default]
    Info,
    Warn,
    Error,
    /// Nothing is more important than an error here; the existing system has this word, too.
    Fatal,
}

/// A word that names no level. The text is that of the existing system.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown log level: {0}")]
pub struct UnknownLevel(pub String);

impl Level {
    pub(super) fn as_filter(self) -> LevelFilter {
        match self {
            Self::Debug => LevelFilter::DEBUG,
            Self::Info => LevelFilter::INFO,
            Self::Warn => LevelFilter::WARN,
            Self::Error | Self::Fatal => LevelFilter::ERROR,
        }
    }
}

/// As in configuration files; nothing means `info`.
impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(word: &str) -> Result<Self, UnknownLevel> {
        Ok(match word {
            "debug" => Self::Debug,
            "" | "info" => Self::Info,
            "warn" => Self::Warn,
            "error" => Self::Error,
            "fatal" => Self::Fatal,
            other => return Err(UnknownLevel(other.to_owned())),
        })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        })
    }
}
