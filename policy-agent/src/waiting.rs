//! Who keeps a pass waiting: rules are written under locks that are shared with other programs, and one
//! that does not let go must be found by an operator who only asks how things stand.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Serialize, Serializer, ser::SerializeStruct};
use tokio::{sync::watch, time::interval_at};

use crate::{
    Config,
    doctor::lock::{self, XTABLES},
    status::Status,
    writers::parent_of,
};

/// Between two looks at a pass that goes on.
const LOOK: Duration = Duration::from_millis(250);

/// How long anybody may hold a lock without being told of. Rules are written in a fraction of this.
const PATIENCE: Duration = Duration::from_secs(1);

/// A lock that somebody else holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    lock: PathBuf,
    holder: u32,
    since: Instant,
}

/// The locks rules are written under.
#[derive(Debug, Clone)]
pub(crate) struct Locks(Arc<Vec<PathBuf>>);

impl Locks {
    pub fn of(config: &Config) -> Self {
        let shared = config.iptables_lock_file.iter().cloned();
        Self(Arc::new(shared.chain([XTABLES.into()]).collect()))
    }

    /// Does the work, and tells the status what it waits for meanwhile.
    pub async fn during<T>(
        &self,
        statuses: &watch::Sender<Status>,
        work: impl Future<Output = T>,
    ) -> T {
        tokio::select! {
            biased;
            done = work => done,
            never = self.watch(statuses) => never,
        }
    }

    async fn watch<T>(&self, statuses: &watch::Sender<Status>) -> T {
        let mut looks = interval_at(tokio::time::Instant::now() + LOOK, LOOK);
        let mut waiting = statuses.borrow().waiting.clone();
        loop {
            looks.tick().await;
            waiting = self.look(waiting);
            let told = waiting.clone().filter(Waiting::is_long);
            statuses.send_if_modified(|status| {
                let new = status.waiting != told;
                if let (true, Some(waiting)) = (new, &told) {
                    tracing::warn!(
                        lock = %waiting.lock.display(),
                        holder = lock::named(waiting.holder),
                        "Another program holds a lock; rules are written once it lets go."
                    );
                }
                status.waiting = told;
                new
            });
        }
    }

    /// What is waited for now: what was before, if the same process has the same lock still.
    pub fn look(&self, before: Option<Waiting>) -> Option<Waiting> {
        let still = |before: &Waiting| lock::state(&before.lock).holder == Some(before.holder);
        before.filter(still).or_else(|| {
            let (lock, holder) = self.0.iter().find_map(|lock| Some((lock, blocked_by(lock)?)))?;
            Some(Waiting { lock: lock.clone(), holder, since: Instant::now() })
        })
    }
}

/// Who else holds a lock that is ours to take. That of iptables itself only concerns us if a program of
/// ours waits for it: with nf_tables nobody takes it.
fn blocked_by(path: &Path) -> Option<u32> {
    let is_ours = |process| {
        let us = std::process::id();
        process == us || parent_of(process) == Some(us)
    };
    let lock::State { holder, waiting } = lock::state(path);
    let concerns_us = path != Path::new(XTABLES) || waiting.into_iter().any(is_ours);
    holder.filter(|holder| concerns_us && !is_ours(*holder))
}

impl Waiting {
    /// Whether it is worth telling.
    pub fn is_long(&self) -> bool {
        self.since.elapsed() >= PATIENCE
    }

    /// As a sentence that stays the same for as long as it is true.
    pub fn told(&self) -> String {
        let (lock, holder) = (self.lock.display(), lock::named(self.holder));
        format!("the rules cannot be written: {holder} holds the lock {lock}")
    }
}

impl Serialize for Waiting {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_struct("Waiting", 3)?;
        map.serialize_field("lock", &self.lock)?;
        map.serialize_field("holder", &lock::named(self.holder))?;
        map.serialize_field("seconds", &self.since.elapsed().as_secs())?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn who_else_holds_a_lock_is_told_and_we_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let locks = Locks(Arc::new(vec![path.clone()]));
        let file = std::fs::File::create(&path).unwrap();
        assert_eq!(locks.look(None), None);
        file.lock().unwrap();
        assert_eq!(locks.look(None), None, "our own");
        file.unlock().unwrap();

        // Not a child of ours, but of a shell that has ended.
        let script = "flock --no-fork \"$0\" sh -c 'echo held; exec sleep 60' & echo $!";
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script).arg(&path).stdout(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = [lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap()];
        said.sort();
        child.wait().unwrap();
        let holder: u32 = said[0].parse().unwrap();
        let waiting = locks.look(None).unwrap();
        assert_eq!(waiting.holder, holder);
        assert_eq!(locks.look(Some(waiting.clone())), Some(waiting.clone()));
        assert!(waiting.told().contains(&format!("process {holder} (")), "{}", waiting.told());

        Command::new("kill").arg(holder.to_string()).status().unwrap();
        let began = Instant::now();
        while locks.look(None).is_some() {
            assert!(began.elapsed() < Duration::from_secs(20));
        }
    }
}
