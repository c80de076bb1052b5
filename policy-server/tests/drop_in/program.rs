//! A program under test. What it prints goes to files: whoever looks there sees what was printed so
//! far, with nothing in between that could be late.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// What a test waits for must come true within this.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A running program. It does not outlive its test.
pub(crate) struct Program {
    child: Child,
    dir: tempfile::TempDir,
}

/// One that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    /// Starts the binary by `name`, which is a symbolic link to it as an operator would make one.
    pub(crate) fn start<A: AsRef<OsStr>>(name: &str, arguments: &[A]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join(name);
        symlink(env!("CARGO_BIN_EXE_policy-server"), &link).unwrap();
        let printed = |file| Stdio::from(File::create(dir.path().join(file)).unwrap());
        let child = Command::new(&link)
            .args(arguments)
            .current_dir(dir.path())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(printed("stdout"))
            .stderr(printed("stderr"))
            .spawn()
            .unwrap();
        Self { child, dir }
    }

    /// Starts it with `-config-file`.
    pub(crate) fn configured(name: &str, file: &Path) -> Self {
        Self::start(name, &[OsStr::new("-config-file"), file.as_os_str()])
    }

    pub(crate) fn stdout(&self) -> String {
        read(&self.dir.path().join("stdout"))
    }

    pub(crate) fn stderr(&self) -> String {
        read(&self.dir.path().join("stderr"))
    }

    /// The lines of the log so far.
    pub(crate) fn log(&self) -> Vec<Value> {
        lines(&self.stdout())
    }

    /// Sends `INT` or `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap();
        assert!(sent.success());
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the end.
    pub(crate) async fn end(mut self) -> Ended {
        let printed = self.dir.path().to_owned();
        let status =
            eventually("the program ends", &printed, async || self.child.try_wait().unwrap()).await;
        Ended { code: status.code(), stdout: self.stdout(), stderr: self.stderr() }
    }

    /// Asks for the end, and waits for it.
    pub(crate) async fn stop(self, signal: &str) -> Ended {
        self.signal(signal);
        self.end().await
    }

    /// Waits until it has written `text` to its log.
    pub(crate) async fn says(&mut self, text: &str) {
        let stdout = self.dir.path().join("stdout");
        let said = async || read(&stdout).contains(text).then_some(());
        self.until(&format!("it says {text}"), said).await;
    }

    /// Waits until `look` finds something.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        mut look: impl AsyncFnMut() -> Option<T>,
    ) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = look().await {
                return found;
            }
            let (ended, told) = (self.has_ended(), format!("{}\n{}", self.stdout(), self.stderr()));
            assert!(!ended, "it ended before {what}: {told}");
            assert!(started.elapsed() < DEADLINE, "gave up waiting until {what}: {told}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// What it said on standard error after the date and the time that Go puts first.
    pub(crate) fn says(&self) -> &str {
        let text = self.stderr.trim_end();
        assert!(is_dated(text), "no date in front: {text}");
        &text[20..]
    }
}

/// Whether `text` begins with `2024/10/24 16:13:44 `.
fn is_dated(text: &str) -> bool {
    let shape = "dddd/dd/dd dd:dd:dd ";
    text.len() > shape.len()
        && text.bytes().zip(shape.bytes()).all(|(is, shape)| match shape {
            b'd' => is.is_ascii_digit(),
            other => is == other,
        })
}

/// The lines of a log, each of which must be JSON.
pub(crate) fn lines(log: &str) -> Vec<Value> {
    let line = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line} is no JSON"));
    log.lines().map(line).collect()
}

/// The messages of a log.
pub(crate) fn messages(log: &[Value]) -> Vec<&str> {
    log.iter().map(|line| line["message"].as_str().unwrap()).collect()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap()
}

async fn eventually<T>(what: &str, dir: &Path, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            started.elapsed() < DEADLINE,
            "gave up waiting until {what}: {}\n{}",
            read(&dir.join("stdout")),
            read(&dir.join("stderr"))
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
