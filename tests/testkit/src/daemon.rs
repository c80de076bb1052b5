//! A long-running program of the world: started, killed, restarted; its output kept in a file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::poll;

/// A program and how to start it.
pub struct Daemon {
    name: String,
    log: PathBuf,
    /// A recipe, since a `Command` cannot be cloned.
    make: Box<dyn Fn() -> Command + Send + Sync>,
    child: Option<Child>,
}

impl Daemon {
    /// Not started yet. Its standard output and error go to `<logs>/<name>.log`.
    pub fn new(
        name: impl Into<String>,
        logs: &Path,
        make: impl Fn() -> Command + Send + Sync + 'static,
    ) -> Self {
        let name = name.into();
        let log = logs.join(format!("{name}.log"));
        Self { name, log, make: Box::new(make), child: None }
    }

    /// Its name in the world, such as `cell-1-policy-agent`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts it; it must not be running.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "{} is running already", self.name);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot open {}", self.log.display()))?;
        let again = log.try_clone().context("cannot share the log")?;
        let child = (self.make)()
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(again)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        self.child = Some(child);
        Ok(())
    }

    /// Its PID inside the sandbox.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Fails, with the end of the log, when the process has ended on its own.
    pub fn check(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { bail!("{} is not running", self.name) };
        match child.try_wait().with_context(|| format!("cannot look at {}", self.name))? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}:\n{}", self.name, self.tail(20)),
        }
    }

    /// Waits until `look` succeeds, and gives up at once when the process ends.
    pub fn until<T>(&mut self, what: &str, mut look: impl FnMut() -> Result<T>) -> Result<T> {
        let mut dead = None;
        let seen = poll::until(what, || {
            dead = self.check().err();
            if dead.is_some() { Ok(None) } else { look().map(Some) }
        })
        .with_context(|| format!("{} says\n{}", self.name, self.tail(20)))?;
        match (seen, dead) {
            (Some(seen), _) => Ok(seen),
            (None, Some(error)) => Err(error),
            (None, None) => unreachable!("nothing is seen only of the dead"),
        }
    }

    /// Runs it to its end, which it must come to by itself: its exit code, and the last it said.
    pub fn ends(&mut self) -> Result<(Option<i32>, String)> {
        self.start()?;
        let Some(child) = &mut self.child else { bail!("{} is not running", self.name) };
        let status = poll::until(&format!("{} ends", self.name), || {
            child.try_wait()?.context("still running")
        })?;
        self.child = None;
        Ok((status.code(), self.tail(5)))
    }

    /// SIGKILL, the worst day: no handler runs.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill().with_context(|| format!("cannot kill {}", self.name))?;
        child.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        Ok(())
    }

    /// SIGTERM; it must end by itself, with success.
    pub fn stop(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        let pid = Pid::from_raw(child.id().cast_signed());
        kill(pid, Signal::SIGTERM).with_context(|| format!("cannot stop {}", self.name))?;
        let status = poll::until(&format!("{} stops", self.name), || {
            child.try_wait()?.context("still running after SIGTERM")
        })?;
        self.child = None;
        ensure!(status.success(), "{} answered SIGTERM with {status}", self.name);
        Ok(())
    }

    /// The last lines it printed.
    pub fn tail(&self, lines: usize) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_else(|error| error.to_string());
        let all: Vec<_> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The sandbox would do it a moment later; a failure here has no one to be told to.
        let _ = self.kill();
    }
}
