//! Logs: one JSON object per line on standard output. A line is a sentence with fields, or, where the
//! existing system has a name for what happened, that name: an event's `name` in `tracing`.
//!
//! Two audiences read them. The plain format is for whoever comes new; the lager format is for those
//! who have searched the logs of the existing system for years ([`lager`]). Each format leaves out
//! what only the other's readers know: see [`ACCESS`] and [`LAGER`].

mod lager;
mod level;

use std::io;

use time::OffsetDateTime;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    layer::{Layered, SubscriberExt},
    reload,
    util::SubscriberInitExt,
};

pub use lager::Era;
use lager::Lager;
pub use level::{Level, UnknownLevel};

/// The target of the one line about each request. Lager's readers know two others instead, so they
/// are only shown those lines that tell of a failure.
pub const ACCESS: &str = "access";

/// The target of lines only lager's readers know.
pub const LAGER: &str = "lager";

/// How a program logs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The least important lines that are written.
    pub level: Level,
    /// In which words.
    pub format: Format,
    /// The crates this program is made of. Of others, that talk to themselves in detail, nothing below
    /// `info` is written.
    pub crates: &'static [&'static str],
}

/// In which words lines are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// Time, level, sentence and fields, side by side.
    Plain,
    /// Lager's.
    Lager {
        /// Who writes, such as `cfnetworking.policy-server`.
        source: String,
        /// Which of lager's shapes.
        era: Era,
    },
}

/// Changes the level while the program runs.
#[derive(Clone)]
pub struct LevelSwitch {
    filter: reload::Handle<EnvFilter, Registry>,
    settings: Settings,
}

/// Starts logging at `level` in the plain format. The environment variable `RUST_LOG` overrides it.
/// Calling it twice, as tests do, changes nothing.
pub fn init(level: Option<&str>) {
    let level = level.unwrap_or_default().parse().unwrap_or_default();
    start(&Settings { level, format: Format::Plain, crates: &[] });
}

/// Starts logging. The environment variable `RUST_LOG` overrides the level of the start. Calling it
/// twice, as tests do, changes nothing.
pub fn start(settings: &Settings) -> LevelSwitch {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) if !directives.is_empty() => EnvFilter::new(directives),
        _ => settings.filter(settings.level),
    };
    let (filter, handle) = reload::Layer::new(filter);
    // An error means that a subscriber is in place already.
    let _ = tracing_subscriber::registry().with(filter).with(settings.writer()).try_init();
    LevelSwitch { filter: handle, settings: settings.clone() }
}

type Filtered = Layered<reload::Layer<EnvFilter, Registry>, Registry>;

impl Settings {
    fn writer(&self) -> Box<dyn Layer<Filtered> + Send + Sync> {
        match &self.format {
            Format::Plain => tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_writer(io::stdout)
                .boxed(),
            Format::Lager { source, era } => Lager::new(source, *era, io::stdout).boxed(),
        }
    }

    fn filter(&self, level: Level) -> EnvFilter {
        let ours = level.as_filter();
        // Whoever names no crates wants to hear all.
        let others = if self.crates.is_empty() { ours } else { ours.min(Level::Info.as_filter()) };
        let (access, lager) = match self.format {
            Format::Plain => (ours, "off".to_owned()),
            Format::Lager { .. } => (Level::Error.as_filter(), ours.to_string()),
        };
        // The driver of databases tells of each connection that is lost, where whoever used it tells once
        // that the database is away.
        let sqlx = if level == Level::Debug { "info" } else { "off" };
        let mut directives =
            format!("{others},sqlx={sqlx},service={ours},{ACCESS}={access},{LAGER}={lager}");
        for name in self.crates {
            directives.push_str(&format!(",{name}={ours}"));
        }
        EnvFilter::new(directives)
    }
}

impl LevelSwitch {
    /// From now on, lines of at least `level` are written.
    pub fn set(&self, level: Level) {
        // An error means that logging was started by somebody else, whose it is then.
        let _ = self.filter.reload(self.settings.filter(level));
    }
}

/// Says on standard error why a program does not start, as Go's `log` would: with the time before it.
pub fn give_up(why: &str) {
    let now = OffsetDateTime::now_utc();
    let (month, (hour, minute, second)) = (u8::from(now.month()), now.to_hms());
    let (year, day) = (now.year(), now.day());
    eprintln!("{year:04}/{month:02}/{day:02} {hour:02}:{minute:02}:{second:02} {why}");
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
mod tests;
