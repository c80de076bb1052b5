//! The database behind the server, as far as it is measured.

use std::time::Duration;

use anyhow::Result;

use crate::process::Process;

/// Which database, and how it is seen.
pub(crate) struct Database {
    /// Where the server finds it; `None` means a file of the server's own.
    pub url: Option<String>,
    /// Its parent process, unless it is a part of the server.
    pub process: Option<Process>,
    /// What it is called in the report.
    pub name: String,
}

impl Database {
    /// Time on a processor so far; `None` if it is a part of the server.
    pub(crate) fn cpu(&self) -> Result<Option<Duration>> {
        self.process.map(Process::cpu_with_children).transpose()
    }
}
