//! The shape of lines that the existing system's logger writes (spec/policy-server.md §12.1).
//!
//! An event with a name of its own (`tracing::info!(name: "created-policies", ...)`) appears by that
//! name; any other by its sentence. One that belongs to a request, which the field `http.id` tells,
//! appears within it: `<source>.request_<uuid>.<name>`. The fields are the line's `data`.

use std::{fmt, io::Write};

use serde::Serialize;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, fmt::MakeWriter, layer::Context};

/// Which of lager's shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// Levels are words, times are dates.
    Of2024,
    /// Levels are numbers, times are seconds since 1970.
    Of2016,
}

/// Fields that lager's readers know by another name.
const KNOWN_AS: [(&str, &str); 6] = [
    ("http.method", "method"),
    ("http.path", "request"),
    (REQUEST, "request_guid"),
    ("listen.address", "listen-address"),
    ("listen.port", "port"),
    ("user.name", "userName"),
];

/// Events that had another name in 2016 (spec/policy-server.md §12.1; deleting logged in the session of
/// creating, §17).
const NAMED_IN_2016: [(&str, &str); 2] = [
    ("create-policies.created-policies", "policies-create.policy-create"),
    ("delete-policies.deleted-policies", "policies-create.policy-delete"),
];

/// The field with the id of the request an event belongs to.
const REQUEST: &str = "http.id";

/// The field with an event's sentence.
const MESSAGE: &str = "message";

/// What `tracing` calls events that have no name begins with this.
const NAMELESS: &str = "event ";

pub(super) struct Lager<W> {
    source: String,
    era: Era,
    writer: W,
}

#[derive(Serialize)]
struct LineOf2024<'a> {
    timestamp: String,
    level: &'a str,
    source: &'a str,
    message: String,
    data: Map<String, Value>,
}

#[derive(Serialize)]
struct LineOf2016<'a> {
    timestamp: String,
    source: &'a str,
    message: String,
    log_level: u8,
    data: Map<String, Value>,
}

impl<W> Lager<W> {
    pub(super) fn new(source: &str, era: Era, writer: W) -> Self {
        Self { source: source.to_owned(), era, writer }
    }

    fn line(&self, event: &Event<'_>, now: OffsetDateTime) -> String {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let message = self.message(event.metadata().name(), &fields);
        let data = fields.into_data();
        let (source, level) = (self.source.as_str(), *event.metadata().level());
        match self.era {
            Era::Of2024 => gocompat::json::to_string(&LineOf2024 {
                timestamp: date(now),
                level: word(level),
                source,
                message,
                data,
            }),
            Era::Of2016 => gocompat::json::to_string(&LineOf2016 {
                timestamp: format!("{}.{:09}", now.unix_timestamp(), now.nanosecond()),
                source,
                message,
                log_level: number(level),
                data,
            }),
        }
    }

    fn message(&self, name: &str, fields: &Fields) -> String {
        let source = &self.source;
        if self.era == Era::Of2016
            && let Some((_, known)) = NAMED_IN_2016.iter().find(|(today, _)| *today == name)
        {
            return format!("{source}.{known}");
        }
        let name = if name.starts_with(NAMELESS) {
            fields.text(MESSAGE).trim_end_matches('.')
        } else {
            name
        };
        match fields.text(REQUEST) {
            "" => format!("{source}.{name}"),
            // The caller's own id may come first; it may say anything.
            id => {
                let ours = id.rsplit_once("::").map_or(id, |(_, ours)| ours);
                format!("{source}.request_{ours}.{name}")
            }
        }
    }
}

impl<S, W> Layer<S> for Lager<W>
where
    S: Subscriber,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut line = self.line(event, OffsetDateTime::now_utc());
        line.push('\n');
        // Whoever cannot write a log cannot tell of it either.
        let _ = self.writer.make_writer_for(event.metadata()).write_all(line.as_bytes());
    }
}

/// The fields of an event.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn into_data(mut self) -> Map<String, Value> {
        self.0.remove(MESSAGE);
        for (ours, known) in KNOWN_AS {
            if let Some(value) = self.0.remove(ours) {
                self.0.insert(known.to_owned(), value);
            }
        }
        self.0
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

fn date(now: OffsetDateTime) -> String {
    let (hour, minute, second, nanosecond) = now.to_hms_nano();
    let (year, month, day) = (now.year(), u8::from(now.month()), now.day());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanosecond:09}Z")
}

/// Lager has no warnings; what may go wrong is told with what did.
fn word(level: tracing::Level) -> &'static str {
    match level {
        tracing::Level::TRACE | tracing::Level::DEBUG => "debug",
        tracing::Level::INFO => "info",
        tracing::Level::WARN | tracing::Level::ERROR => "error",
    }
}

fn number(level: tracing::Level) -> u8 {
    match level {
        tracing::Level::TRACE | tracing::Level::DEBUG => 0,
        tracing::Level::INFO => 1,
        tracing::Level::WARN | tracing::Level::ERROR => 2,
    }
}
