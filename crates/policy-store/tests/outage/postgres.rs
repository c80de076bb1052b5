//! A PostgreSQL to be killed.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::Server;

/// Its directory, and its process while it runs. Gone when dropped.
pub(crate) struct Postgres {
    dir: tempfile::TempDir,
    port: u16,
    running: Option<Child>,
}

impl Server for Postgres {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { dir, port, running: None };
        let made = as_nobody(&programs().join("initdb"))
            .args([
                "--no-sync",
                "-U",
                "netman",
                "--auth",
                "trust",
                "-E",
                "UTF8",
                "--locale",
                "C.UTF-8",
                "-D",
            ])
            .arg(server.data())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "initdb: {made}");
        server.restart();
        server
    }

    fn url(&self) -> String {
        format!("postgres://netman@127.0.0.1:{}/postgres", self.port)
    }

    /// Starts it, and waits until it lets somebody in.
    fn restart(&mut self) {
        let child = as_nobody(&programs().join("postgres"))
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1", "-k", ""])
            // The machine does not crash, so not every file needs to be flushed before it recovers.
            .args(["-c", "recovery_init_sync_method=syncfs"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.running = Some(child);
        let started = Instant::now();
        let ready = || {
            Command::new(programs().join("pg_isready"))
                .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                .status()
                .unwrap()
                .success()
        };
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() || !ready() {
            assert!(started.elapsed() < Duration::from_secs(60), "PostgreSQL did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it at once, in the middle of whatever it does. Its workers notice and end, too; until they
    /// have, nothing can be started on its data.
    fn kill(&mut self) {
        let mut child = self.running.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let lock = self.data().join("postmaster.pid");
        let started = Instant::now();
        while !self.workers().is_empty() {
            assert!(started.elapsed() < Duration::from_secs(60), "PostgreSQL did not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        fs::remove_file(lock).unwrap();
    }

    /// Stops it and all its workers where they are.
    fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets them go on.
    fn thaw(&self) {
        self.signal("-CONT");
    }
}

impl Postgres {
    fn signal(&self, signal: &str) {
        let mut processes = self.workers();
        processes.extend(self.running.as_ref().map(Child::id));
        let processes = processes.iter().map(ToString::to_string);
        // A worker may have ended since it was looked for, which is no failure.
        Command::new("kill").arg(signal).args(processes).stderr(Stdio::null()).status().unwrap();
    }

    /// The processes whose directory is the data's.
    fn workers(&self) -> Vec<u32> {
        let data = self.data().canonicalize().unwrap();
        let processes = fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == data))
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| Some(*pid) != self.running.as_ref().map(Child::id))
            .collect()
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.thaw();
            self.kill();
        }
    }
}

/// Database servers refuse to run as root.
pub(crate) fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        "nobody",
        "--regid",
        "nogroup",
        "--clear-groups",
        "--pdeathsig",
        "KILL",
    ]);
    command.arg("--").arg(program).current_dir("/");
    command
}

/// Where Debian keeps the programs of the newest PostgreSQL it has.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
    let newest = versions.flatten().map(|version| version.path().join("bin")).max();
    newest.expect("PostgreSQL is installed in some version")
}
