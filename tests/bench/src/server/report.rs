//! What the numbers come to: a table to read, and a document to keep (design §6).

mod plot;
mod table;
mod targets;

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Measurement, Memory};
use crate::{machine::Machine, outcome::Outcome};

#[derive(Serialize)]
pub(super) struct Report {
    name: &'static str,
    date: String,
    commit: String,
    machine: Machine,
    database: String,
    seconds_per_measurement: u64,
    results: Vec<Outcome>,
    measurements: Vec<Measurement>,
    memory: Vec<Memory>,
    /// Of the existing server, on a machine of this size, with 100,000 policies stored.
    recorded_elsewhere: &'static [(&'static str, &'static str)],
}

/// What was recorded of the existing server.
const RECORDED_ELSEWHERE: &[(&str, &str)] = &[
    ("poll for 50 apps", "12 requests/s at best, p50 176 ms"),
    ("full list", "3 requests/s"),
    ("create", "290 requests/s"),
    ("delete", "45 requests/s"),
    ("create 100 at once", "436 policies/s"),
    ("memory at most", "420 MB"),
];

impl Report {
    pub(super) fn new(
        mut machine: Machine,
        database: String,
        duration: Duration,
        measurements: Vec<Measurement>,
        memory: Vec<Memory>,
    ) -> Self {
        Self {
            name: "server",
            date: std::mem::take(&mut machine.date),
            commit: std::mem::take(&mut machine.commit),
            machine,
            database,
            seconds_per_measurement: duration.as_secs(),
            results: targets::judge(&measurements, &memory),
            measurements,
            memory,
            recorded_elsewhere: RECORDED_ELSEWHERE,
        }
    }

    /// Prints it, and writes it to `file` with a plot beside it.
    pub(super) fn publish(&self, file: &Path) -> Result<()> {
        table::print(self);
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        let json = serde_json::to_string_pretty(self)? + "\n";
        fs::write(file, json).with_context(|| format!("writing {}", file.display()))?;
        plot::draw(&self.measurements, &file.with_extension("svg"))
    }
}
