//! What the kernel says about this process (proc(5)).

use std::{
    fs, io,
    time::{Duration, SystemTime},
};

/// Ticks per second in `/proc/*/stat`: part of the kernel's interface on every architecture we run on.
const TICKS: u64 = 100;

/// What this process uses, now.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Process {
    /// Of all threads, in user and kernel mode.
    pub cpu: Duration,
    /// Bytes in memory.
    pub resident: u64,
    /// Bytes of address space.
    pub virtual_memory: u64,
    pub threads: u64,
    pub open_files: usize,
    /// How many files may be open; `None` means any number.
    pub most_files: Option<u64>,
    pub started: SystemTime,
}

/// Looks at this process; `None` where `/proc` is missing or speaks another dialect.
pub(super) fn look() -> Option<Process> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{file}")).ok();
    // One of them is the directory itself, being read.
    let open_files = count_entries("/proc/self/fd").ok()?.saturating_sub(1);
    parse(
        &read("self/stat")?,
        &read("self/status")?,
        &read("self/limits")?,
        &read("stat")?,
        open_files,
    )
}

fn count_entries(directory: &str) -> io::Result<usize> {
    Ok(fs::read_dir(directory)?.count())
}

fn parse(
    stat: &str,
    status: &str,
    limits: &str,
    system: &str,
    open_files: usize,
) -> Option<Process> {
    // The name, in parentheses, may hold anything; what follows begins with the third field.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = |count: u64| Duration::from_millis(count * (1000 / TICKS));
    let kilobytes = |name: &str| Some(1024 * word(status, name)?.parse::<u64>().ok()?);
    let booted = Duration::from_secs(word(system, "btime")?.parse().ok()?);
    Some(Process {
        cpu: ticks(field(14)? + field(15)?),
        resident: kilobytes("VmRSS:")?,
        virtual_memory: kilobytes("VmSize:")?,
        threads: word(status, "Threads:")?.parse().ok()?,
        open_files,
        most_files: word(limits, "Max open files")?.parse().ok(),
        started: SystemTime::UNIX_EPOCH + booted + ticks(field(22)?),
    })
}

/// The first word after `name`, on the line that begins with it.
fn word<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4242 (policy) server)) S 1 4242 4242 0 -1 4194560 3034 0 12 0 250 150 0 0 20 0 5 0 \
        1000 275697664 6053 18446744073709551615 1 1 0 0 0 0 0 4096 17663 0 0 0 17 1 0 0 0 0 0 0 0 0";
    const STATUS: &str =
        "Name:\tpolicy) server)\nVmSize:\t  269236 kB\nVmRSS:\t   24212 kB\nThreads:\t5\n";
    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units\n\
        Max open files            1024                 524288               files\n";
    const SYSTEM: &str = "cpu  1 2 3\nbtime 1729786000\nprocesses 7\n";

    #[test]
    fn the_kernels_words_are_understood() {
        let expected = Process {
            cpu: Duration::from_secs(4),
            resident: 24212 * 1024,
            virtual_memory: 269_236 * 1024,
            threads: 5,
            open_files: 9,
            most_files: Some(1024),
            started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_729_786_010),
        };
        assert_eq!(parse(STAT, STATUS, LIMITS, SYSTEM, 9), Some(expected));
        let unlimited = LIMITS.replace("1024", "unlimited");
        assert_eq!(parse(STAT, STATUS, &unlimited, SYSTEM, 9).unwrap().most_files, None);
    }

    #[test]
    fn words_that_are_missing_make_no_numbers() {
        for (stat, status, limits, system) in [
            ("", STATUS, LIMITS, SYSTEM),
            ("1 (x) S 1 2", STATUS, LIMITS, SYSTEM),
            (STAT, "", LIMITS, SYSTEM),
            (STAT, STATUS, "", SYSTEM),
            (STAT, STATUS, LIMITS, ""),
        ] {
            assert_eq!(parse(stat, status, limits, system, 9), None);
        }
    }

    #[test]
    fn this_process_is_seen() {
        let process = look().unwrap();
        assert!(process.resident > 0 && process.threads > 0 && process.open_files > 2);
        assert!(process.started <= SystemTime::now());
    }
}
