//! Something kept going while the world is being disturbed, that counts what went wrong meanwhile.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::netns::Netns;
use crate::poll;
use crate::probe::{self, Cut, Held, Outcome};
use crate::reach::Port;

/// Between two calls.
const EVERY: Duration = Duration::from_millis(20);

/// A connection held open, or a row of calls. Ends when asked, or dropped.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    worker: Option<JoinHandle<Result<Account>>>,
}

/// What came of it.
#[derive(Debug)]
enum Account {
    Held(Held),
    Calls { made: u64, failed: Vec<String>, answered: Vec<String> },
}

/// How a connection is kept busy.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Talk {
    /// We ask, and are answered.
    Ask(Port),
    /// The other end pushes, we only listen.
    Listen(Port),
}

impl Traffic {
    /// Opens a connection over which a line comes every few milliseconds; returns once the first has
    /// come.
    pub(crate) fn hold(netns: Netns, to: IpAddr, talk: Talk) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (asked, (opened, open)) = (stop.clone(), mpsc::channel());
        let worker = thread::spawn(move || {
            let go_on = || !asked.load(Ordering::Relaxed);
            let opened = move || _ = opened.send(());
            let held = netns.inside(|| match talk {
                Talk::Ask(Port { transport, number }) => {
                    probe::hold(transport, to, number, opened, go_on)
                }
                Talk::Listen(Port { transport, number }) => {
                    probe::hear(transport, to, number, opened, go_on)
                }
            })?;
            Ok(Account::Held(held.with_context(|| format!("cannot connect to {to} {talk:?}"))?))
        });
        let mut traffic = Self { stop, worker: Some(worker) };
        match open.recv() {
            Ok(()) => Ok(traffic),
            // The sender went away without a word: the connection never stood.
            Err(mpsc::RecvError) => match traffic.end() {
                Ok(account) => bail!("connection to {to} {talk:?} ended at once: {account:?}"),
                Err(error) => Err(error),
            },
        }
    }

    /// Makes a new connection every few milliseconds.
    pub(crate) fn calls(netns: Netns, to: IpAddr, port: Port) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let worker = thread::spawn(move || {
            netns.inside(|| {
                let (mut made, mut failed, mut answered) = (0, Vec::new(), Vec::new());
                while !asked.load(Ordering::Relaxed) {
                    let patience = Duration::from_secs(2);
                    let seen = probe::dial(port.transport, to, port.number, patience);
                    made += 1;
                    let account = format!("call {made} to {to} {port}: {seen}");
                    match seen.outcome {
                        Outcome::Open => answered.push(account),
                        _ => failed.push(account),
                    }
                    thread::sleep(EVERY);
                }
                Account::Calls { made, failed, answered }
            })
        });
        Self { stop, worker: Some(worker) }
    }

    /// Whether it still goes on (a held connection that was cut does not).
    pub fn goes_on(&self) -> bool {
        self.worker.as_ref().is_some_and(|worker| !worker.is_finished())
    }

    /// Waits until somebody cuts the connection, and tells how it ended.
    pub fn cut(mut self) -> Result<Held> {
        poll::until("the open connection is cut", || {
            ensure!(!self.goes_on(), "it still answers");
            Ok(())
        })?;
        match self.end()? {
            Account::Held(held) => {
                ensure!(held.how != Cut::Stopped, "nobody cut it");
                Ok(held)
            }
            Account::Calls { .. } => bail!("calls cannot be cut"),
        }
    }

    /// Stops it; nothing may have gone wrong since it began. Returns how much went right.
    pub fn unharmed(mut self) -> Result<u64> {
        match self.end()? {
            Account::Held(held) => {
                ensure!(
                    held.how == Cut::Stopped,
                    "the connection was to live, but was cut ({}) after {} answers",
                    held.how,
                    held.answered
                );
                Ok(held.answered)
            }
            Account::Calls { made, failed, answered: _ } => {
                let first: Vec<_> = failed.iter().take(5).map(String::as_str).collect();
                ensure!(
                    failed.is_empty(),
                    "{} of {made} calls failed, such as\n  {}",
                    failed.len(),
                    first.join("\n  ")
                );
                ensure!(made > 0, "no call was made");
                Ok(made)
            }
        }
    }

    /// Stops it; not one call may have been answered since it began. Returns those that were not
    /// refused outright.
    pub fn denied(mut self) -> Result<Vec<String>> {
        match self.end()? {
            Account::Held(held) => bail!("a connection was to be denied, and stood: {held:?}"),
            Account::Calls { made, mut failed, answered } => {
                let first: Vec<_> = answered.iter().take(5).map(String::as_str).collect();
                ensure!(
                    answered.is_empty(),
                    "{} of {made} denied calls were answered, such as\n  {}",
                    answered.len(),
                    first.join("\n  ")
                );
                ensure!(made > 0, "no call was made");
                failed.retain(|account| !account.contains(&Outcome::Refused.to_string()));
                Ok(failed)
            }
        }
    }

    fn end(&mut self) -> Result<Account> {
        self.stop.store(true, Ordering::Relaxed);
        let worker = self.worker.take().context("traffic ends once")?;
        worker.join().map_err(|_| anyhow!("the traffic's thread panicked"))?
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        if self.worker.is_some() {
            // Only reached when a test fails before it asked for the account.
            let _ = self.end();
        }
    }
}
