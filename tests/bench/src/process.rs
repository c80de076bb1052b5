//! What processes use, as the kernel tells it (proc(5)).

use std::{fs, io, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};

/// Ticks per second in `/proc/*/stat`: part of the kernel's interface on every architecture.
const TICKS: u64 = 100;

/// A process, by its number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(pub u32);

/// The fields of `/proc/PID/stat` that matter here.
struct Stat {
    parent: u32,
    /// Its own time on a processor, in user and kernel mode.
    own: Duration,
    /// That of children that have ended.
    reaped: Duration,
}

impl Process {
    /// Time on a processor so far, of all threads.
    pub(crate) fn cpu(self) -> Result<Duration> {
        Ok(self.stat()?.own)
    }

    /// Time on a processor so far, of the process and its children, those that ended included.
    pub(crate) fn cpu_with_children(self) -> Result<Duration> {
        let stat = self.stat()?;
        let processes = fs::read_dir("/proc").context("listing processes")?;
        let numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        // One may end while it is looked at; its time is then the parent's, or lost.
        let living = numbers.filter_map(|number| Self(number).stat().ok());
        let children = living.filter(|child| child.parent == self.0).map(|child| child.own);
        Ok(stat.own + stat.reaped + children.sum::<Duration>())
    }

    /// The most memory it had since [`forget_peak`](Self::forget_peak), in bytes.
    pub(crate) fn peak_memory(self) -> Result<u64> {
        self.kilobytes("VmHWM:")
    }

    /// The memory it has now, in bytes.
    pub(crate) fn memory(self) -> Result<u64> {
        self.kilobytes("VmRSS:")
    }

    /// Sends it a signal, by its name without `SIG`.
    pub(crate) fn signal(self, name: &str) -> Result<()> {
        let mut kill = Command::new("kill");
        let sent = kill.args([&format!("-{name}"), &self.0.to_string()]).status();
        ensure!(sent.context("running kill")?.success(), "process {} is not there", self.0);
        Ok(())
    }

    /// Takes what the process has now for its peak.
    pub(crate) fn forget_peak(self) -> Result<()> {
        fs::write(self.path("clear_refs"), "5").context("forgetting the peak of memory")
    }

    fn kilobytes(self, field: &str) -> Result<u64> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(1024 * kilobytes.context("the kernel does not tell the memory of a process")?)
    }

    fn stat(self) -> Result<Stat> {
        let text = self.read("stat")?;
        parse(&text).with_context(|| format!("reading the times of process {}", self.0))
    }

    fn read(self, file: &str) -> Result<String> {
        let read: io::Result<_> = fs::read_to_string(self.path(file));
        read.with_context(|| format!("looking at process {}", self.0))
    }

    fn path(self, file: &str) -> String {
        format!("/proc/{}/{file}", self.0)
    }
}

fn parse(stat: &str) -> Option<Stat> {
    // The name, in parentheses, may hold anything; what follows begins with the third field.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let time = |first: usize| {
        let ticks = field(first)? + field(first + 1)?;
        Some(Duration::from_millis(ticks * (1000 / TICKS)))
    };
    Some(Stat { parent: field(4)?.try_into().ok()?, own: time(14)?, reaped: time(16)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "42 (a) 7 b) S 1 42 42 0 -1 4194560 3034 0 12 0 250 150 30 10 20 0 5 0 1000 1 1";
        let stat = parse(stat).unwrap();
        assert_eq!(stat.parent, 1);
        assert_eq!((stat.own, stat.reaped), (Duration::from_secs(4), Duration::from_millis(400)));
        assert!(parse("42 (a) S 1 2").is_none());
    }

    #[test]
    fn this_process_is_seen() {
        let this = Process(std::process::id());
        let (now, most) = (this.memory().unwrap(), this.peak_memory().unwrap());
        assert!(now > 0 && now <= most, "{now} of {most}");
        let earlier = this.cpu().unwrap();
        assert!(this.cpu_with_children().unwrap() >= earlier);
    }
}
