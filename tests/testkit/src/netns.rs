//! Network namespaces by name, commands and closures inside them.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};

/// A network namespace, known by a path that leads to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Netns {
    path: PathBuf,
}

impl Netns {
    /// Makes a new one with loopback up, under a name `ip netns` knows too.
    pub fn create(name: &str) -> Result<Self> {
        ip(["netns", "add", name])?;
        let netns = Self { path: Path::new("/run/netns").join(name) };
        netns.run("ip", ["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// The one a process lives in.
    pub fn of_process(pid: u32) -> Self {
        Self { path: format!("/proc/{pid}/ns/net").into() }
    }

    /// What leads to it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the name up; the namespace goes with its last process.
    pub fn remove(&self) -> Result<()> {
        let name = self.path.file_name().context("a namespace path ends in its name")?;
        ip([OsStr::new("netns"), OsStr::new("del"), name]).map(drop)
    }

    /// A command that will run inside. Only the network changes: `ip netns exec` would also make a
    /// mount namespace, and the networker's bind mounts would be lost in it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut net = std::ffi::OsString::from("--net=");
        net.push(&self.path);
        let mut command = Command::new("nsenter");
        command.arg(net).arg("--").arg(program).stdin(Stdio::null());
        command
    }

    /// Runs a command inside to its end, and returns what it printed.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<String> {
        finish(self.command(program).args(arguments))
    }

    /// Runs a closure inside, on a thread of its own, since a namespace belongs to a thread.
    pub fn inside<T: Send>(&self, what: impl FnOnce() -> T + Send) -> Result<T> {
        let namespace = File::open(&self.path)
            .with_context(|| format!("cannot open namespace {}", self.path.display()))?;
        thread::scope(|scope| {
            let visit = scope.spawn(|| -> Result<T> {
                setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter a namespace")?;
                Ok(what())
            });
            visit.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// Runs `ip`, here.
pub fn ip<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Result<String> {
    finish(Command::new("ip").args(arguments).stdin(Stdio::null()))
}

/// Runs a command to its end; anything but success is an error that tells what it printed.
pub fn finish(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{}", complaint(command, &output));
    Ok(text)
}

/// How a failed command is told.
pub fn complaint(command: &Command, output: &Output) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect();
    let said = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
    format!(
        "`{}` ended with {}: {} {}",
        words.join(" "),
        output.status,
        said(&output.stderr),
        said(&output.stdout)
    )
}

/// Sets a sysctl inside.
pub fn sysctl(netns: &Netns, key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{key}");
    match netns.inside(|| std::fs::write(&path, value))? {
        Ok(()) => Ok(()),
        Err(error) => bail!("cannot set {path} to {value}: {error}"),
    }
}
