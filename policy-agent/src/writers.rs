//! Who else writes to the firewall, so that a repair can be told with who made it necessary. The kernel
//! says so of each change of nf_tables, by whichever program; not of the older iptables.

use std::{
    collections::BTreeSet,
    fs,
    iter::successors,
    process,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use netfilter_events::generation::{Change, Changes};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How many are remembered.
const MOST: usize = 16;

/// An agent, its networker, a program of that.
const GENERATIONS: usize = 3;

/// How soon listening is tried again.
const RETRY: Duration = Duration::from_secs(60);

/// Those who have written since they were last taken: program and process. Everybody who wants to know
/// has one of these, and takes nothing away from others.
#[derive(Debug, Clone)]
pub(crate) struct Writers {
    /// For each reader.
    heard: Arc<Mutex<Vec<BTreeSet<String>>>>,
    reader: usize,
}

impl Default for Writers {
    fn default() -> Self {
        Self { heard: Arc::new(Mutex::new(vec![BTreeSet::new()])), reader: 0 }
    }
}

impl Writers {
    /// Listens until `shutdown`. What cannot be heard is not told; rules are repaired all the same.
    pub async fn listen(self, shutdown: CancellationToken) {
        tokio::select! {
            () = self.hear() => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn hear(&self) {
        loop {
            if let Ok(mut changes) = Changes::open() {
                while let Ok(change) = changes.next().await {
                    change.iter().for_each(|change| self.note(change));
                }
            }
            sleep(RETRY).await;
        }
    }

    /// The same for somebody else.
    pub fn another(&self) -> Self {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.push(BTreeSet::new());
        Self { heard: self.heard.clone(), reader: heard.len() - 1 }
    }

    /// Those who have written since the last call.
    pub fn take(&self) -> BTreeSet<String> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut heard[self.reader])
    }

    fn note(&self, change: &Change) {
        let Some(writer) = change.process else { return };
        // Ours are our children, and those of the networker that we start.
        let mut family = successors(Some(writer), |process| parent_of(*process)).take(GENERATIONS);
        if family.any(|process| process == process::id()) {
            return;
        }
        let program = change.program.as_deref().unwrap_or("unknown");
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        for writers in heard.iter_mut().filter(|writers| writers.len() < MOST) {
            writers.insert(format!("{program} ({writer})"));
        }
    }
}

/// Who started `process`, if it has not ended.
pub(crate) fn parent_of(process: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(process: u32, program: &str) -> Change {
        Change { generation: 7, process: Some(process), program: Some(program.into()) }
    }

    #[test]
    fn others_are_named_once_and_we_and_our_children_are_not() {
        let writers = Writers::default();
        let another = writers.another();
        let mut child = process::Command::new("sleep").arg("60").spawn().unwrap();
        writers.note(&change(process::id(), "policy-agent"));
        writers.note(&change(child.id(), "iptables-restor"));
        writers.note(&change(1, "nft"));
        writers.note(&change(1, "nft"));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(writers.take(), ["nft (1)".to_owned()].into());
        assert!(writers.take().is_empty());
        assert_eq!(another.take(), ["nft (1)".to_owned()].into());
    }
}
