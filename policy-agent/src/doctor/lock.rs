//! Who holds the locks that writers of rules share. One that is never given back keeps the agent from
//! changing anything.

use std::{fs, os::unix::fs::MetadataExt, path::Path, thread, time::Duration};

use nix::sys::stat::{major, minor};

use super::Finding;
use crate::saved;

/// The lock of iptables itself; its nf_tables engine does without.
pub(crate) const XTABLES: &str = "/run/xtables.lock";

/// Rules are written in a fraction of this.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOKS: u32 = 10;

pub(super) fn examine(shared: Option<&Path>) -> Vec<Finding> {
    let xtables = ("xtables lock", Path::new(XTABLES));
    let shared = shared.map(|path| ("shared lock", path));
    [Some(xtables), shared].into_iter().flatten().map(|(name, path)| look(name, path)).collect()
}

/// The kernel's list leaves out a lock now and then while others come and go (one look in fifty when it
/// is busy), so one that is not there is looked for again before it is believed to be free.
const SURE: usize = 6;

/// How things stand with a lock.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub holder: Option<u32>,
    /// Processes that sleep until it is free; others may ask for it again and again.
    pub waiting: Vec<u32>,
}

/// How things stand with the lock on a file. A holder that cannot be seen from here is not told.
pub(crate) fn state(path: &Path) -> State {
    let Ok(of) = fs::metadata(path) else { return State::default() };
    let file = format!("{:02x}:{:02x}:{}", major(of.dev()), minor(of.dev()), of.ino());
    let look = || {
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        State { holder: holder_of(&locks, &file), waiting: waiting_for(&locks, &file) }
    };
    let mut looks = std::iter::repeat_with(look).take(SURE);
    looks.find(|state| state.holder.is_some()).unwrap_or_default()
}

/// A process, and its program if it can be seen.
pub(crate) fn named(process: u32) -> String {
    let program = fs::read_to_string(format!("/proc/{process}/comm"));
    let program =
        program.map_or_else(|_| "another namespace".into(), |name| name.trim().to_owned());
    format!("process {process} ({program})")
}

fn look(name: &str, path: &Path) -> Finding {
    if !path.exists() {
        if let Some(why) = saved::obstacle(path) {
            return Finding::broken(name, format!("{why}; without it no rule is written"));
        }
        return Finding::fine(name, format!("{} is not there, so nobody holds it", path.display()));
    }
    let mut holder = None;
    for _ in 0..LOOKS {
        match (state(path).holder, holder) {
            (None, _) => return Finding::fine(name, format!("{} is free", path.display())),
            (Some(now), Some(before)) if now != before => {
                let says = format!("{} passes from hand to hand", path.display());
                return Finding::fine(name, says);
            }
            (now, _) => holder = now,
        }
        thread::sleep(PATIENCE / LOOKS);
    }
    let says = format!(
        "{} has been held for a second by {}; rules cannot be written meanwhile",
        path.display(),
        named(holder.unwrap_or_default())
    );
    Finding::warning(name, says)
}

/// Who holds the lock on `file` (`<major>:<minor>:<inode>`), as `/proc/locks` lists them; those who wait
/// are marked with an arrow.
fn holder_of(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            [_, "FLOCK" | "POSIX" | "OFDLCK", _, _, process, of, ..] if of == file => {
                process.parse().ok()
            }
            _ => None,
        }
    })
}

/// Who sleeps until it is free.
fn waiting_for(locks: &str, file: &str) -> Vec<u32> {
    let waiting = locks.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            [_, "->", _, _, _, process, of, ..] if of == file => process.parse().ok(),
            _ => None,
        }
    });
    waiting.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_holder_is_told_from_those_who_wait() {
        let locks = "\
1: FLOCK  ADVISORY  WRITE 4242 00:1a:77 0 EOF
1: -> FLOCK  ADVISORY  WRITE 4343 00:1a:77 0 EOF
2: POSIX  ADVISORY  READ  7 fe:01:9 0 EOF
";
        assert_eq!(holder_of(locks, "00:1a:77"), Some(4242));
        assert_eq!(waiting_for(locks, "00:1a:77"), [4343]);
        assert!(waiting_for(locks, "fe:01:9").is_empty());
        assert_eq!(holder_of(locks, "fe:01:9"), Some(7));
        assert_eq!(holder_of(locks, "fe:01:77"), None);
    }

    #[test]
    fn a_lock_that_is_held_is_told_and_a_free_one_is_fine() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert_eq!(look("lock", &path).verdict, crate::doctor::Verdict::Fine);
        let file = fs::File::create(&path).unwrap();
        assert_eq!(look("lock", &path).verdict, crate::doctor::Verdict::Fine);
        let below_a_file = look("lock", &path.join("lock"));
        assert_eq!(below_a_file.verdict, crate::doctor::Verdict::Broken, "{below_a_file:?}");
        file.lock().unwrap();
        let finding = look("lock", &path);
        assert_eq!(finding.verdict, crate::doctor::Verdict::Warning, "{finding:?}");
        assert!(finding.says.contains(&format!("process {} ", std::process::id())), "{finding:?}");
    }

    proptest! {
        #[test]
        fn any_listing_names_a_holder_or_none(text: String) {
            let _ = (holder_of(&text, "00:1a:77"), waiting_for(&text, "00:1a:77"));
        }
    }
}
