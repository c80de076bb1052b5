//! A MariaDB to be killed.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{Server, postgres::as_nobody};

/// Its directory, and its process while it runs. Gone when dropped.
///
/// Temporary files go to that directory, too: the user it runs as may not write to a sandbox's.
pub(crate) struct MariaDb {
    dir: tempfile::TempDir,
    port: u16,
    running: Option<Child>,
}

impl Server for MariaDb {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(
            dir.path().join("users.sql"),
            "CREATE DATABASE IF NOT EXISTS netman;\n\
             CREATE USER IF NOT EXISTS netman@'%';\n\
             GRANT ALL ON *.* TO netman@'%';\n",
        )
        .unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { dir, port, running: None };
        let made = as_nobody(Path::new("mariadb-install-db"))
            // The host of a test may have a name that no resolver knows.
            .args(["--no-defaults", "--force", "--skip-test-db"])
            .arg("--auth-root-authentication-method=normal")
            .arg(format!("--datadir={}", server.path("data").display()))
            .env("TMPDIR", server.dir.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "mariadb-install-db: {made:?}");
        server.restart();
        server
    }

    fn url(&self) -> String {
        format!("mysql://netman@127.0.0.1:{}/netman", self.port)
    }

    fn restart(&mut self) {
        let child = as_nobody(Path::new("mariadbd"))
            .args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve"])
            .arg(format!("--port={}", self.port))
            .arg(format!("--datadir={}", self.path("data").display()))
            .arg(format!("--socket={}", self.path("socket").display()))
            .arg(format!("--pid-file={}", self.path("pid").display()))
            .arg(format!("--init-file={}", self.path("users.sql").display()))
            .env("TMPDIR", self.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.running = Some(child);
        let started = Instant::now();
        let ready = || {
            Command::new("mariadb-admin")
                .args(["--no-defaults", "--protocol=tcp", "-h", "127.0.0.1", "-u", "netman"])
                .args(["--connect-timeout=1", "-P", &self.port.to_string(), "ping"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap()
                .success()
        };
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() || !ready() {
            assert!(started.elapsed() < Duration::from_secs(60), "MariaDB did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&mut self) {
        let mut child = self.running.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn freeze(&self) {
        self.signal("-STOP");
    }

    fn thaw(&self) {
        self.signal("-CONT");
    }
}

impl MariaDb {
    fn signal(&self, signal: &str) {
        let process = self.running.as_ref().map(Child::id).unwrap().to_string();
        assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.kill();
        }
    }
}
