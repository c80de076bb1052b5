//! The networker, which is started when something is missing of what it wrote for containers: it has the
//! records from which that can be written again, and we have not.
//!
//! One run at a time; after a run that failed, or that left something missing, pauses grow, unless what is
//! missing becomes something else.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use service::log::chain;
use thiserror::Error;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Command,
    sync::{mpsc, oneshot, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{cycle::Wake, status::Status};

/// Between two runs, if the first has helped.
const SHORTEST: Duration = Duration::from_secs(1);
/// And after many that have not.
const LONGEST: Duration = Duration::from_secs(300);
/// And while nothing is seen to be missing: of settings of links, which are no rules, nobody tells us.
const REGULARLY: Duration = Duration::from_secs(60);
/// How long a run may take. It waits for others who work on the same containers, and for us.
const LIMIT: Duration = Duration::from_secs(120);
/// How many lines of what it says are logged of one run.
const LINES: usize = 20;
/// How much of its last line is told of a run that failed, in characters.
const LAST_WORDS: usize = 300;

/// What is run, and what came of it: for `/status` and `/metrics`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Repairs {
    pub runs: u64,
    pub failures: u64,
    /// Containers of which something was put right, each run counting them anew.
    pub containers: u64,
    pub running: bool,
    /// Why the last run failed, if it did.
    pub failure: Option<String>,
    /// The last run that put something right.
    pub last: Option<Run>,
}

/// A run that put something right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Run {
    /// When it ended.
    pub at: String,
    /// Since it was seen that something is missing.
    pub after_ms: u64,
    /// What was put right of each container.
    pub containers: BTreeMap<String, Vec<String>>,
}

/// A handle on what came of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Option<Repairs>>>);

/// Starts the program.
pub(crate) struct Networker {
    command: Vec<OsString>,
    statuses: watch::Receiver<Status>,
    wake: mpsc::Sender<Wake>,
    told: Told,
}

/// Why a run did not put everything right.
#[derive(Debug, Error)]
enum Failed {
    #[error("{program:?} cannot be run")]
    Start {
        program: OsString,
        #[source]
        source: std::io::Error,
    },
    #[error("it ended with {status}: {said}")]
    Ended {
        status: std::process::ExitStatus,
        /// Its last words.
        said: String,
    },
    #[error("it did not end within {} seconds", LIMIT.as_secs())]
    Endless,
}

/// What the networker says of a container it has mended.
#[derive(Debug, Deserialize)]
struct Line {
    container: String,
    #[serde(default)]
    mended: Vec<String>,
}

impl Told {
    /// What came of it so far; `None` if there is nothing to start.
    pub fn get(&self) -> Option<Repairs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, note: impl FnOnce(&mut Repairs)) {
        note(self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default());
    }
}

impl Networker {
    /// One that is started by this command, unless it is empty.
    pub fn new(
        command: &[String],
        statuses: watch::Receiver<Status>,
        wake: mpsc::Sender<Wake>,
    ) -> (Option<Self>, Told) {
        let told = Told::default();
        if command.is_empty() {
            return (None, told);
        }
        told.note(|_| {});
        let command = command.iter().map(OsString::from).collect();
        (Some(Self { command, statuses, wake, told: told.clone() }), told)
    }

    /// Runs until `shutdown`. What is missing since before our start nobody here can know, so the program
    /// is started once in any case.
    pub async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            () = self.go_on() => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn go_on(&mut self) {
        let mut pause = SHORTEST;
        // What the rules are is known once a pass has been made.
        if self.statuses.wait_for(|status| status.held.is_none()).await.is_err() {
            return;
        }
        let mut since = Instant::now();
        loop {
            // What changes while it runs may be its own doing, or not; another run finds nothing to do, or does it.
            let changes = self.statuses.borrow().networker_changes;
            let failed = self.repair(since).await.is_err();
            let Some(missing) = self.look_again().await else { return };
            let helped = !failed && missing.is_empty();
            pause = if helped { SHORTEST } else { (pause * 2).min(LONGEST) };
            let known = Known { missing, changes };
            let again = sleep(if helped { REGULARLY } else { pause });
            sleep(SHORTEST).await;
            tokio::select! {
                news = known.news(&mut self.statuses) => match news {
                    Some(()) => since = Instant::now(),
                    None => return,
                },
                () = again => since = Instant::now()
            }
        }
    }

    /// What is missing after a pass that is made now.
    async fn look_again(&mut self) -> Option<Vec<String>> {
        let (waiter, passed) = oneshot::channel();
        self.wake.send(Wake::Forced(waiter)).await.ok()?;
        passed.await.ok()?;
        Some(self.statuses.borrow_and_update().unguarded.clone())
    }

    async fn repair(&self, since: Instant) -> Result<(), ()> {
        self.told.note(|repairs| {
            repairs.runs += 1;
            repairs.running = true;
        });
        let (containers, ended) = start(&self.command).await;
        let after_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let failure = ended.as_ref().err().map(|failed| chain(failed));
        if let Some(error) = &failure {
            tracing::warn!(
                error,
                "The networker could not repair what it wrote for containers; it is started again."
            );
        }
        if !containers.is_empty() {
            let names: Vec<_> = containers.keys().map(String::as_str).collect();
            tracing::warn!(
                containers = names.join(", "),
                after_ms,
                "The networker has repaired what it wrote for containers."
            );
        }
        self.told.note(|repairs| {
            repairs.running = false;
            repairs.failures += u64::from(failure.is_some());
            repairs.failure = failure;
            repairs.containers += u64::try_from(containers.len()).unwrap_or(u64::MAX);
            if !containers.is_empty() {
                let at = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
                repairs.last = Some(Run { at, after_ms, containers });
            }
        });
        ended.map_err(drop)
    }
}

/// What was known of the networker's rules when it was started last.
struct Known {
    missing: Vec<String>,
    changes: u64,
}

impl Known {
    /// Waits until something else is missing, or has changed.
    async fn news(&self, statuses: &mut watch::Receiver<Status>) -> Option<()> {
        let is_news = |status: &Status| {
            let other = |one: &String| !self.missing.contains(one);
            status.networker_changes != self.changes || status.unguarded.iter().any(other)
        };
        statuses.wait_for(is_news).await.ok().map(drop)
    }
}

/// Runs the command to its end; what it says on standard error is logged. Returns what it says it mended.
async fn start(command: &[OsString]) -> (BTreeMap<String, Vec<String>>, Result<(), Failed>) {
    let program = command[0].clone();
    let child = Command::new(&program)
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(source) => return (BTreeMap::new(), Err(Failed::Start { program, source })),
    };
    let (out, said) = (child.stdout.take(), child.stderr.take());
    let mut mended = BTreeMap::new();
    let (mut lines, mut last) = (0, String::new());
    let ended = timeout(LIMIT, async {
        let hear = each_line(out, |line| {
            if let Ok(Line { container, mended: what }) = serde_json::from_str(line) {
                mended.insert(container, what);
            }
        });
        let log = each_line(said, |line| {
            lines += 1;
            last = line.chars().take(LAST_WORDS).collect();
            if lines <= LINES {
                tracing::warn!(line, "The networker says");
            }
        });
        tokio::join!(hear, log);
        child.wait().await
    });
    let ended = match ended.await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) if last.is_empty() => {
            Err(Failed::Ended { status, said: "it said nothing".to_owned() })
        }
        Ok(Ok(status)) => Err(Failed::Ended { status, said: last }),
        Ok(Err(source)) => Err(Failed::Start { program, source }),
        Err(_) => Err(Failed::Endless),
    };
    if lines > LINES {
        tracing::warn!(lines = lines - LINES, "The networker says more than is logged.");
    }
    (mended, ended)
}

async fn each_line(from: Option<impl AsyncRead + Unpin>, mut tell: impl FnMut(&str)) {
    let Some(from) = from else { return };
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    // What is no text is read as far as it is; a pipe that breaks has said all it will.
    while matches!(from.read_until(b'\n', &mut line).await, Ok(1..)) {
        tell(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn shell(script: &str) -> Vec<OsString> {
        ["sh", "-c", script].map(OsString::from).into()
    }

    #[tokio::test]
    async fn what_was_mended_is_heard_whatever_else_is_said_and_how_it_ended() {
        let script = r#"echo '{"container":"web","mended":["netout--web"]}'; echo rubbish
            echo '{"container":"db","mended":[]}'; echo 'no luck' >&2; exit 1"#;
        let (mended, ended) = start(&shell(script)).await;
        assert_eq!(mended["web"], ["netout--web"]);
        assert_eq!(mended.len(), 2);
        assert_eq!(ended.unwrap_err().to_string(), "it ended with exit status: 1: no luck");
        assert!(start(&shell("exit 0")).await.1.is_ok());
        let (_, ended) = start(&["/does/not/exist".into()]).await;
        assert!(matches!(ended, Err(Failed::Start { .. })));
    }

    /// A cycle whose every pass finds missing what a test says; and the runs of a command that fails.
    struct Fake {
        statuses: watch::Sender<Status>,
        told: Told,
    }

    fn fake(script: &str, missing: &[&str]) -> Fake {
        let found = Status { held: None, unguarded: texts(missing), ..Status::unknown() };
        let (statuses, watching) = watch::channel(found);
        let (wake, mut wakes) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(Wake::Forced(waiter)) = wakes.recv().await {
                let _ = waiter.send(BTreeSet::new());
            }
        });
        let command = ["sh", "-c", script].map(str::to_owned);
        let (networker, told) = Networker::new(&command, watching, wake);
        let networker = networker.unwrap();
        tokio::spawn(networker.run(CancellationToken::new()));
        Fake { statuses, told }
    }

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|&text| text.to_owned()).collect()
    }

    impl Fake {
        fn miss(&self, what: &[&str]) {
            self.statuses.send_modify(|status| status.unguarded = texts(what));
        }

        /// How many runs have ended after so many seconds.
        async fn runs_after(&self, seconds: u64) -> u64 {
            sleep(Duration::from_secs(seconds)).await;
            while self.told.get().unwrap().running {
                tokio::task::yield_now().await;
            }
            self.told.get().unwrap().runs
        }

        async fn until_runs(&self, expected: u64) {
            let enough = || self.told.get().is_some_and(|now| now.runs >= expected && !now.running);
            while !enough() {
                sleep(Duration::from_millis(5)).await;
            }
        }
    }

    #[tokio::test]
    async fn it_is_started_once_and_then_only_when_something_is_missing() {
        let fake = fake("exit 0", &[]);
        fake.until_runs(1).await;
        assert_eq!(fake.runs_after(2).await, 1, "nothing is missing");
        fake.miss(&["web"]);
        fake.until_runs(2).await;
        fake.miss(&[]);
        assert_eq!(fake.told.get().unwrap().failures, 0);
    }

    #[tokio::test]
    async fn after_failures_pauses_grow_unless_something_else_is_missing() {
        let fake = fake("exit 3", &["web"]);
        fake.until_runs(3).await;
        let began = Instant::now();
        fake.until_runs(4).await;
        assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());
        fake.miss(&["web", "db"]);
        let began = Instant::now();
        fake.until_runs(5).await;
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        let told = fake.told.get().unwrap();
        assert!(told.failures >= 4 && told.failure.unwrap().contains("exit status: 3"));
    }

    #[test]
    fn without_a_command_nothing_is_started_or_told() {
        let (_, statuses) = watch::channel(Status::unknown());
        let (networker, told) = Networker::new(&[], statuses, mpsc::channel(1).0);
        assert!(networker.is_none() && told.get().is_none());
    }
}
