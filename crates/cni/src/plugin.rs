//! Running one plugin: feed it, drain it, wait for it, and only then read what it said.

use std::{
    ffi::OsString,
    fmt,
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Sender},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde::Deserialize;
use thiserror::Error;

/// Nothing a plugin has to say is longer.
const LONGEST_OUTPUT: u64 = 4 * 1024 * 1024;

/// How long a killed plugin's output is waited for.
const GRACE: Duration = Duration::from_secs(2);

/// What a failing plugin said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// CNI's error code: below 100 those of the specification, above those of the plugin.
    pub code: u32,
    /// What happened.
    pub message: String,
    /// More about it.
    pub details: String,
    /// What it wrote on stderr besides.
    pub stderr: String,
}

/// Why a plugin has not done what it was asked to.
#[derive(Debug, Error)]
pub enum PluginError {
    /// There is no such program.
    #[error("CNI plugin {kind:?} is not in {}", dir.display())]
    NotFound {
        /// The plugin.
        kind: String,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// It cannot be started.
    #[error("starting CNI plugin {}", path.display())]
    Start {
        /// Its program.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It took too long and was killed.
    #[error(
        "CNI plugin {kind:?} did not finish {command} within {limit:?} and was killed{}",
        Said(stderr)
    )]
    TimedOut {
        /// The plugin.
        kind: String,
        /// ADD or DEL.
        command: &'static str,
        /// How long it had.
        limit: Duration,
        /// What it wrote on stderr meanwhile.
        stderr: String,
    },
    /// It failed, and said why.
    #[error("CNI plugin {kind:?} failed to {command}")]
    Failed {
        /// The plugin.
        kind: String,
        /// ADD or DEL.
        command: &'static str,
        /// What it said.
        #[source]
        source: Box<Fault>,
    },
    /// It failed, and what it said is no CNI error.
    #[error(
        "CNI plugin {kind:?} failed to {command} ({status}) without saying why{}",
        Said(stderr)
    )]
    Speechless {
        /// The plugin.
        kind: String,
        /// ADD or DEL.
        command: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote on stderr.
        stderr: String,
    },
}

/// One run of one plugin.
pub(crate) struct Invocation<'a> {
    pub(crate) kind: &'a str,
    pub(crate) dir: &'a Path,
    pub(crate) command: &'static str,
    /// The `CNI_*` variables beside `CNI_COMMAND` and `CNI_PATH`.
    pub(crate) variables: Vec<(&'static str, OsString)>,
    pub(crate) stdin: Vec<u8>,
    pub(crate) limit: Duration,
}

enum Event {
    Exited(io::Result<ExitStatus>),
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
}

#[derive(Default)]
struct Ending {
    status: Option<io::Result<ExitStatus>>,
    stdout: Option<Vec<u8>>,
    stderr: Option<Vec<u8>>,
}

/// The program of a plugin.
pub(crate) fn find(kind: &str, dir: &Path) -> Result<PathBuf, PluginError> {
    let path = dir.join(kind);
    if path.is_file() {
        Ok(path)
    } else {
        Err(PluginError::NotFound { kind: kind.to_owned(), dir: dir.to_owned() })
    }
}

impl Invocation<'_> {
    /// Runs the plugin and returns what it wrote on stdout.
    pub(crate) fn run(self) -> Result<Vec<u8>, PluginError> {
        let path = find(self.kind, self.dir)?;
        let child = self.start(&path).map_err(|source| PluginError::Start { path, source })?;
        let group = Pid::from_raw(child.id().cast_signed());
        let (sender, events) = mpsc::channel();
        attend(child, self.stdin, &sender);
        drop(sender);

        let mut ending = Ending::default();
        let in_time = ending.gather(&events, Instant::now() + self.limit);
        if !in_time {
            // The whole group: a plugin may be waiting for a plugin of its own.
            let _ = killpg(group, Signal::SIGKILL);
            ending.gather(&events, Instant::now() + GRACE);
        }
        let (kind, command) = (self.kind.to_owned(), self.command);
        let stderr = ending.stderr.as_deref().map(text).unwrap_or_default();
        let (Some(Ok(status)), true) = (ending.status, in_time) else {
            return Err(PluginError::TimedOut { kind, command, limit: self.limit, stderr });
        };
        let stdout = ending.stdout.unwrap_or_default();
        if status.success() {
            if !stderr.is_empty() {
                tracing::debug!(cni.plugin = kind, cni.command = command, "{stderr}");
            }
            return Ok(stdout);
        }
        Err(match Fault::read(&stdout, &stderr) {
            Some(fault) => PluginError::Failed { kind, command, source: Box::new(fault) },
            None => {
                let said = if stderr.is_empty() { text(&stdout) } else { stderr };
                PluginError::Speechless { kind, command, status, stderr: said }
            }
        })
    }

    fn start(&self, path: &Path) -> io::Result<Child> {
        let mut command = Command::new(path);
        command
            .env("CNI_COMMAND", self.command)
            .env("CNI_PATH", self.dir)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut attempts = 0;
        loop {
            match command.spawn() {
                // Somebody is just installing the plugin, or forked while it was open for writing.
                Err(error)
                    if error.kind() == io::ErrorKind::ExecutableFileBusy && attempts < 50 =>
                {
                    attempts += 1;
                    thread::sleep(Duration::from_millis(20));
                }
                result => return result,
            }
        }
    }
}

/// One thread for each of the child's four ends, so that none of them can hold up another.
fn attend(mut child: Child, input: Vec<u8>, events: &Sender<Event>) {
    let stdin = child.stdin.take();
    thread::spawn(move || {
        // A plugin that does not read its input says itself what is wrong.
        let _ = stdin.map(|mut stdin| stdin.write_all(&input));
    });
    drain(child.stdout.take(), Event::Stdout, events.clone());
    drain(child.stderr.take(), Event::Stderr, events.clone());
    let events = events.clone();
    thread::spawn(move || {
        let _ = events.send(Event::Exited(child.wait()));
    });
}

fn drain(
    pipe: Option<impl Read + Send + 'static>,
    event: fn(Vec<u8>) -> Event,
    events: Sender<Event>,
) {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // Whatever could be read is worth having.
            let _ = pipe.by_ref().take(LONGEST_OUTPUT).read_to_end(&mut bytes);
            let _ = io::copy(&mut pipe, &mut io::sink());
        }
        let _ = events.send(event(bytes));
    });
}

impl Ending {
    /// Whether all three have come before `deadline`.
    fn gather(&mut self, events: &mpsc::Receiver<Event>, deadline: Instant) -> bool {
        while !self.is_complete() {
            let left = deadline.saturating_duration_since(Instant::now());
            match events.recv_timeout(left) {
                Ok(Event::Exited(status)) => self.status = Some(status),
                Ok(Event::Stdout(bytes)) => self.stdout = Some(bytes),
                Ok(Event::Stderr(bytes)) => self.stderr = Some(bytes),
                Err(_) => return false,
            }
        }
        true
    }

    fn is_complete(&self) -> bool {
        self.status.is_some() && self.stdout.is_some() && self.stderr.is_some()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// What was on stderr, as the end of a sentence.
struct Said<'a>(&'a str);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}

// === impl Fault ===

impl Fault {
    /// The error document of a failed run, if that is what the plugin wrote.
    fn read(stdout: &[u8], stderr: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Document {
            code: u32,
            #[serde(default)]
            msg: String,
            #[serde(default)]
            details: String,
        }
        let Document { code, msg, details } = serde_json::from_slice(stdout).ok()?;
        Some(Self { code, message: msg, details, stderr: stderr.to_owned() })
    }
}

impl std::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.details.is_empty() {
            write!(f, "; {}", self.details)?;
        }
        write!(f, " (code {}){}", self.code, Said(&self.stderr))
    }
}

#[cfg(test)]
mod tests;
