use std::{
    fs::File,
    io::{self, Write},
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use super::{Kernel, KernelError};
use crate::{Dialect, Family, Observed, Plan};

/// Seconds to wait for the lock that iptables-legacy programs share.
const XTABLES_WAIT: &str = "10";

/// How long other writers of rules may hold the lock file. Nobody should for longer than one restore.
const PATIENCE: Duration = Duration::from_secs(10);

/// The exit code of "somebody else is writing, try again" (spec/cell.md §I.14).
const RESOURCE_PROBLEM: i32 = 4;

/// How often that is tried again, a little later each time.
const ATTEMPTS: u32 = 5;

/// The kernel through `iptables-save` and one `iptables-restore --noflush` per commit.
#[derive(Debug, Default)]
pub struct Iptables {
    lock_file: Option<PathBuf>,
}

impl Iptables {
    /// Through the programs found on `PATH`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Holding this file's lock while committing, as the other programs of the cell do
    /// (spec/cell.md §C.7). The file is created when missing and never truncated.
    #[must_use]
    pub fn with_lock_file(mut self, path: Option<PathBuf>) -> Self {
        self.lock_file = path;
        self
    }

    fn lock(&self) -> Result<Option<File>, KernelError> {
        let Some(path) = &self.lock_file else { return Ok(None) };
        let locked = || -> io::Result<File> {
            let file = files::open_to_lock(path)?;
            files::lock(&file, PATIENCE)?;
            Ok(file)
        };
        let failed = |source| KernelError::Lock { path: path.display().to_string(), source };
        locked().map(Some).map_err(failed)
    }
}

impl Kernel for Iptables {
    fn dialect(&self) -> Dialect {
        Dialect::Iptables(Family::V4)
    }

    fn generation(&mut self) -> Result<Option<u32>, KernelError> {
        Ok(None)
    }

    fn generations_of(&self, plan: &Plan) -> u32 {
        u32::try_from(plan.tables.len()).unwrap_or(u32::MAX)
    }

    fn observe(&mut self) -> Result<Observed, KernelError> {
        let output = run("iptables-save", &[], "")?;
        let listing = String::from_utf8_lossy(&output.stdout);
        Ok(Observed::parse(&listing)?)
    }

    fn commit(&mut self, plan: &Plan) -> Result<(), KernelError> {
        if plan.is_empty() {
            return Ok(());
        }
        let text = plan.render();
        let _held = self.lock()?;
        let mut attempt = 1;
        loop {
            match run("iptables-restore", &["--noflush", "--wait", XTABLES_WAIT], &text) {
                Err(KernelError::Failed { status, .. })
                    if status.code() == Some(RESOURCE_PROBLEM) && attempt < ATTEMPTS =>
                {
                    thread::sleep(Duration::from_millis(20) * attempt);
                    attempt += 1;
                }
                result => return result.map(drop),
            }
        }
    }
}

/// Runs a program to its end with `input`; anything but exit code 0 is an error.
fn run(program: &str, args: &[&str], input: &str) -> Result<Output, KernelError> {
    let output = feed(program, args, input)
        .map_err(|source| KernelError::Run { program: program.to_owned(), source })?;
    if output.status.success() {
        return Ok(output);
    }
    Err(KernelError::Failed {
        program: program.to_owned(),
        status: output.status,
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

fn feed(program: &str, args: &[&str], input: &str) -> io::Result<Output> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().expect("stdin was asked to be a pipe");
    // These programs read all input before they print more than a pipe holds, so writing first
    // cannot deadlock. One that dies early says why on stderr, which tells more than a broken pipe.
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    match written {
        Err(error) if output.status.success() => Err(error),
        _ => Ok(output),
    }
}
