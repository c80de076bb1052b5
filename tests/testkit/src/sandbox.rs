//! The private world everything runs in: a mount and a PID namespace of its own, with an empty
//! `/run`, so that no process, namespace, lock or file can outlive it, however it ends.
//!
//! ```text
//! sandbox CMD            outside: forwards signals, and dies with whoever started it
//!  └ sandbox --first CMD   process 1 inside: private mounts, fresh /proc and /run, reaps
//!     └ CMD                  the test binary, or the demo
//!        └ daemons, containers, probes
//! ```
//!
//! When process 1 ends, by whatever cause, the kernel kills every process below it; with them go the
//! mounts, and with the mounts the network namespaces. `unshare(1)` could do the first half, but its
//! process 1 would be the test binary, which neither reaps nor handles signals; and only from in
//! here can the PID be learnt by which the outside knows process 1 (for stepping inside).

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;
use std::{env, fs, thread};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, geteuid};

/// First argument of the process that becomes number 1 inside.
pub const FIRST: &str = "--first";
/// Exists only inside, and holds the PID by which the outside knows process 1.
const MARKER: &str = "/run/netman-sandbox";
/// How long a command may take to clean up after the first signal.
const GRACE: Duration = Duration::from_secs(15);

/// Refuses to go on outside of a sandbox, where namespaces and rules would be left behind.
pub fn require() -> Result<()> {
    ensure!(
        Path::new(MARKER).exists(),
        "this builds network namespaces and firewall rules, and runs only inside its sandbox, as \
         root: use scripts/test (or scripts/demo), or `sandbox COMMAND`"
    );
    Ok(())
}

/// The PID by which the outside knows this sandbox's process 1.
pub fn outside_pid() -> Result<i32> {
    let text = fs::read_to_string(MARKER).with_context(|| format!("cannot read {MARKER}"))?;
    text.trim().parse().with_context(|| format!("{MARKER} does not hold a PID"))
}

/// Runs a command in a new sandbox, and returns its exit code.
pub fn run(command: &[OsString]) -> Result<u8> {
    ensure!(!command.is_empty(), "usage: sandbox COMMAND [ARGUMENT]...");
    ensure!(geteuid().is_root(), "a sandbox needs root, to make namespaces: try with sudo");
    // If cargo, or the shell, is killed outright, so are we, and with us all that is inside. A world
    // that is to outlive its shell says so.
    if env::var_os("NETMAN_SANDBOX_STAYS").is_none() {
        prctl::set_pdeathsig(Signal::SIGKILL).context("cannot tie our life to our parent's")?;
    }
    // Blocked and taken one by one: a process whose children live in another PID namespace may not
    // start threads, so there is no handler thread to be had here.
    let signals: SigSet =
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD].into_iter().collect();
    signals.thread_block().context("cannot block signals")?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)
        .context("cannot make a mount and a PID namespace")?;
    let me = env::current_exe().context("cannot find this program")?;
    let first = Command::new(me).arg(FIRST).args(command).spawn().context("cannot start inside")?;
    let first = Pid::from_raw(first.id().cast_signed());
    let mut asked = false;
    loop {
        match signals.wait().context("cannot wait for signals")? {
            Signal::SIGCHLD => match waitpid(first, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => {}
                Ok(status) => return Ok(exit_code(status)),
                Err(error) => bail!("cannot wait for the sandbox: {error}"),
            },
            _ => {
                let signal = if asked { Signal::SIGKILL } else { Signal::SIGTERM };
                asked = true;
                // Gone already: its SIGCHLD is on the way.
                let _ = kill(first, signal);
            }
        }
    }
}

/// What process 1 does: makes the mounts private, starts the command, reaps until it ends.
pub fn first(command: &[OsString]) -> Result<u8> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot tie our life to our parent's")?;
    // The old /proc is still mounted, and speaks of us with the number the outside uses.
    let outside = fs::read_link("/proc/self").context("cannot read /proc/self")?;
    ensure!(std::process::id() == 1, "`{FIRST}` is only for process 1 of a sandbox");
    private_mounts()?;
    fs::write(MARKER, outside.as_os_str().as_encoded_bytes()).context("cannot write the marker")?;
    SigSet::all().thread_unblock().context("cannot unblock signals")?;

    let (program, arguments) = command.split_first().context("no command to run inside")?;
    let started = Command::new(program)
        .args(arguments)
        .env("TMPDIR", "/run/tmp")
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let pid = Pid::from_raw(started.id().cast_signed());
    let seen = AtomicI32::new(0);
    ctrlc::set_handler(move || {
        if seen.fetch_add(1, Ordering::Relaxed) > 0 {
            return;
        }
        let _ = kill(pid, Signal::SIGTERM);
        thread::spawn(|| {
            thread::sleep(GRACE);
            std::process::exit(128 + Signal::SIGKILL as i32);
        });
    })
    .context("cannot handle signals")?;
    loop {
        match waitpid(None, None) {
            Ok(status) if status.pid() == Some(pid) => return Ok(exit_code(status)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => bail!("cannot wait for {}: {error}", program.display()),
        }
    }
}

/// An empty `/run` (namespace names, xtables lock, temporary files) and a `/proc` of our own, seen by
/// nobody outside.
fn private_mounts() -> Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("cannot make the mounts private")?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none)
        .context("cannot mount /proc")?;
    mount(Some("netman"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
        .context("cannot mount a private /run")?;
    fs::create_dir("/run/tmp").context("cannot create /run/tmp")
}

fn exit_code(status: WaitStatus) -> u8 {
    match status {
        WaitStatus::Exited(_, code) => u8::try_from(code & 0xff).unwrap_or(1),
        WaitStatus::Signaled(_, signal, _) => 128 + signal as u8,
        _ => 1,
    }
}
