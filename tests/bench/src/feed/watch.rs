//! What the machine goes through: how many connections are opened, and how busy its processors are.

use std::{collections::VecDeque, fs, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::outcome::rounded;

/// How often is looked.
const LOOK: Duration = Duration::from_millis(100);

/// Peaks are those of a second.
const LOOKS: usize = 10;

/// Looks until it is asked for what it saw.
pub(super) struct Watch {
    stop: oneshot::Sender<()>,
    looking: JoinHandle<Result<Peaks>>,
}

/// The busiest seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Peaks {
    /// Connections of TCP that were accepted in a second, by anybody on this machine.
    pub connections: u64,
    /// Of all processors.
    pub busy_percent: f64,
}

/// Counters of the kernel, which only grow.
#[derive(Debug, Clone, Copy)]
struct Counters {
    connections: u64,
    busy: u64,
    all: u64,
}

impl Watch {
    pub(super) fn start() -> Self {
        let (stop, stopped) = oneshot::channel();
        Self { stop, looking: tokio::spawn(look(stopped)) }
    }

    pub(super) async fn peaks(self) -> Result<Peaks> {
        // It ends by itself only when it cannot look, which it then says.
        let _ = self.stop.send(());
        self.looking.await?
    }
}

async fn look(mut stopped: oneshot::Receiver<()>) -> Result<Peaks> {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut second, mut peaks) = (VecDeque::new(), Peaks::default());
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut stopped => return Ok(peaks),
        }
        let now = Counters::read()?;
        peaks.take(second.front().copied(), now);
        second.push_back(now);
        if second.len() > LOOKS {
            second.pop_front();
        }
    }
}

impl Peaks {
    fn take(&mut self, before: Option<Counters>, now: Counters) {
        let Some(before) = before else { return };
        self.connections = self.connections.max(now.connections - before.connections);
        let all = now.all.saturating_sub(before.all).max(1);
        let busy = now.busy.saturating_sub(before.busy);
        self.busy_percent = self.busy_percent.max(rounded(100.0 * busy as f64 / all as f64));
    }
}

impl Counters {
    fn read() -> Result<Self> {
        let connections = passive_opens(&fs::read_to_string("/proc/net/snmp")?);
        let times = times(&fs::read_to_string("/proc/stat")?);
        let connections = connections.context("/proc/net/snmp does not tell of connections")?;
        let (busy, all) = times.context("/proc/stat does not tell of processors")?;
        Ok(Self { connections, busy, all })
    }
}

/// One line names the fields, the next has their values.
fn passive_opens(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Tcp:"));
    let place = lines.next()?.split(' ').position(|name| name == "PassiveOpens")?;
    lines.next()?.split(' ').nth(place)?.parse().ok()
}

/// Ticks that were not idle, and all.
fn times(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guests are counted as users.
    let all: u64 = ticks.iter().take(8).sum();
    Some((all - ticks.get(3)? - ticks.get(4)?, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_names() {
        let snmp = "Ip: Forwarding\nIp: 1\nTcp: RtoMin ActiveOpens PassiveOpens\nTcp: 200 8 15\n";
        assert_eq!(passive_opens(snmp), Some(15));
        let stat = "cpu  100 5 50 800 20 0 5 1 7 0\ncpu0 1 1 1 1\n";
        assert_eq!(times(stat), Some((161, 981)));
        assert!(passive_opens("").is_none() && times("cpu0 1").is_none());
        Counters::read().unwrap();
    }

    #[test]
    fn a_peak_stays() {
        let at = |connections, busy, all| Counters { connections, busy, all };
        let mut peaks = Peaks::default();
        for (before, now) in [(at(0, 0, 0), at(9, 50, 100)), (at(9, 50, 100), at(10, 150, 300))] {
            peaks.take(None, before);
            peaks.take(Some(before), now);
        }
        assert_eq!(peaks, Peaks { connections: 9, busy_percent: 50.0 });
    }
}
