use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use super::*;

#[derive(Debug, thiserror::Error)]
#[error("opening the store")]
struct Outer(#[source] io::Error);

#[test]
fn a_chain_names_every_cause_once() {
    let error = Outer(io::Error::other("disk full"));
    assert_eq!(chain(&error), "opening the store: disk full");
}

/// Keeps what is written.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Paper {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Paper {
    fn lines(&self) -> Vec<Value> {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

const SOURCE: &str = "cfnetworking.policy-server";

fn lager(level: Level) -> Settings {
    let format = Format::Lager { source: SOURCE.to_owned(), era: Era::Of2024 };
    Settings { level, format, crates: &["service"] }
}

/// What is written of what happens in `scene`, by lager and at this level.
fn written(settings: &Settings, era: Era, scene: impl FnOnce()) -> Vec<Value> {
    let paper = Paper::default();
    let subscriber = tracing_subscriber::registry()
        .with(settings.filter(settings.level))
        .with(Lager::new(SOURCE, era, paper.clone()));
    tracing::subscriber::with_default(subscriber, scene);
    paper.lines()
}

fn a_request() {
    let id = "theirs::0a1b";
    tracing::debug!(
        name: "serving", target: LAGER,
        { http.method = "GET", http.path = "/x", http.id = id }, "Asked."
    );
    tracing::info!(
        name: "create-policies.created-policies",
        { http.id = id, user.name = "alice" }, "Created policies."
    );
    tracing::info!(target: ACCESS, { http.id = id, http.status = 200 }, "Answered.");
    tracing::error!(target: ACCESS, { http.id = id, error = "gone" }, "Failed to answer.");
}

fn messages(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["message"].as_str().unwrap()).collect()
}

#[test]
fn what_the_driver_of_databases_says_is_for_those_who_want_details() {
    let scene = || {
        tracing::warn!(target: "sqlx_core::pool::inner", "error from `before_acquire`");
        tracing::warn!(target: "sqlx::query", "slow statement");
        tracing::warn!("The database is away.");
    };
    for settings in [lager(Level::Info), Settings { crates: &[], ..lager(Level::Info) }] {
        assert_eq!(written(&settings, Era::Of2024, scene).len(), 1);
    }
    assert_eq!(written(&lager(Level::Debug), Era::Of2024, scene).len(), 3);
}

#[test]
fn lager_shows_events_by_the_names_its_readers_know() {
    let mut lines = written(&lager(Level::Debug), Era::Of2024, a_request);
    assert_eq!(
        messages(&lines),
        [
            "cfnetworking.policy-server.request_0a1b.serving",
            "cfnetworking.policy-server.request_0a1b.create-policies.created-policies",
            "cfnetworking.policy-server.request_0a1b.Failed to answer",
        ]
    );
    let timestamp = lines[0]["timestamp"].take();
    let timestamp = timestamp.as_str().unwrap();
    assert_eq!((timestamp.len(), &timestamp[10..11], &timestamp[29..]), (30, "T", "Z"));
    assert_eq!(
        lines[0],
        json!({
            "timestamp": null, "level": "debug", "source": SOURCE,
            "message": "cfnetworking.policy-server.request_0a1b.serving",
            "data": {"method": "GET", "request": "/x", "request_guid": "theirs::0a1b"},
        })
    );
    assert_eq!(lines[1]["data"]["userName"], "alice");
    assert_eq!((&lines[2]["level"], &lines[2]["data"]["error"]), (&json!("error"), &json!("gone")));
}

#[test]
fn the_lines_of_2016_have_numbers_for_levels_and_times() {
    let settings = lager(Level::Info);
    let lines = written(&settings, Era::Of2016, || tracing::warn!(count = 2, "Late."));
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["log_level"], 2);
    assert_eq!(lines[0]["message"], "cfnetworking.policy-server.Late");
    let timestamp: f64 = lines[0]["timestamp"].as_str().unwrap().parse().unwrap();
    assert!(timestamp > 1.7e9, "{timestamp}");
    assert_eq!(lines[0]["data"], json!({"count": 2}));
}

#[test]
fn who_changed_policies_is_told_by_the_names_of_2016() {
    let names = |era| {
        let lines = written(&lager(Level::Info), era, || {
            tracing::info!(name: "create-policies.created-policies", { http.id = "0a1b" }, "Created.");
            tracing::info!(name: "delete-policies.deleted-policies", { http.id = "0a1b" }, "Deleted.");
        });
        messages(&lines).into_iter().map(|it| it[SOURCE.len() + 1..].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        names(Era::Of2016),
        ["policies-create.policy-create", "policies-create.policy-delete"]
    );
    assert_eq!(names(Era::Of2024)[0], "request_0a1b.create-policies.created-policies");
}

#[test]
fn at_info_lager_tells_of_no_request_that_went_well() {
    let lines = written(&lager(Level::Info), Era::Of2024, || {
        tracing::debug!(name: "done", target: LAGER, { http.id = "0a1b" }, "Answered.");
        tracing::info!(target: ACCESS, { http.id = "0a1b" }, "Answered.");
        tracing::debug!(target: "hyper", "reading");
        tracing::info!("Listening.");
    });
    assert_eq!(messages(&lines), ["cfnetworking.policy-server.Listening"]);
}

#[test]
fn other_crates_keep_their_details_to_themselves() {
    let lines = written(&lager(Level::Debug), Era::Of2024, || {
        tracing::debug!(target: "hyper", "reading");
        tracing::info!(target: "hyper", "listening");
        tracing::debug!("ours");
    });
    assert_eq!(
        messages(&lines),
        ["cfnetworking.policy-server.listening", "cfnetworking.policy-server.ours"]
    );
}

#[test]
fn at_warn_there_are_warnings_and_errors_only() {
    let lines = written(&lager(Level::Warn), Era::Of2024, || {
        tracing::info!("a");
        tracing::warn!("b");
        tracing::error!("c");
    });
    assert_eq!(messages(&lines), ["cfnetworking.policy-server.b", "cfnetworking.policy-server.c"]);
}

#[test]
fn what_a_level_prints_it_can_be_made_of_again() {
    for word in ["debug", "info", "warn", "error", "fatal"] {
        assert_eq!(word.parse::<Level>().unwrap().to_string(), word);
    }
    assert_eq!("".parse(), Ok(Level::Info));
    let error = "loud".parse::<Level>().unwrap_err();
    assert_eq!(error.to_string(), "unknown log level: loud");
}
