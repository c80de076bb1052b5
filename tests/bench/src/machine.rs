//! Where and when, without which numbers say little.

use std::{fs, process::Command, thread};

use anyhow::{Context, Result};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub processor: String,
    pub processors: usize,
    pub memory_gib: u64,
    pub kernel: String,
    /// Of the last minute, before anything was measured: what else the machine was doing.
    pub load_before: f64,
    #[serde(skip)]
    pub date: String,
    #[serde(skip)]
    pub commit: String,
}

impl Machine {
    /// This machine, now, on this commit.
    pub(crate) fn look() -> Result<Self> {
        let memory = field("/proc/meminfo", "MemTotal");
        let kilobytes = memory.split(' ').next().and_then(|word| word.parse::<u64>().ok());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
        Ok(Self {
            processor: field("/proc/cpuinfo", "model name"),
            processors: thread::available_parallelism()?.get(),
            memory_gib: kilobytes.unwrap_or(0) >> 20,
            kernel,
            load_before: load(),
            date: OffsetDateTime::now_utc().replace_nanosecond(0)?.format(&Rfc3339)?,
            commit: commit()?,
        })
    }
}

fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

/// What follows `name:` in a file of /proc; empty where it does not say.
fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned()).unwrap_or_default()
}

fn commit() -> Result<String> {
    let output =
        Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=10"]).output();
    let output = output.context("asking git for the commit")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
