//! The reachability matrix: who may reach whom, on which port; everything else must be refused.
//!
//! All ordered pairs, on all ports anyone answers on, are tried at once, and again until the whole of
//! it holds in one sweep. Each is pinged as well, which no policy allows. So every "may" stands beside its "may not", and a matrix that holds cannot
//! be held by a pulled cable, nor by a missing firewall.

use std::fmt;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::poll;
use crate::probe::{Dialled, Outcome, Transport};
use crate::world::Container;

/// A protocol and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Port {
    pub transport: Transport,
    pub number: u16,
}

/// A TCP port.
pub fn tcp(number: u16) -> Port {
    Port { transport: Transport::Tcp, number }
}

/// A UDP port.
pub fn udp(number: u16) -> Port {
    Port { transport: Transport::Udp, number }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.transport, self.number)
    }
}

/// Expectations about some containers.
#[derive(Clone)]
pub struct Matrix<'a> {
    containers: Vec<&'a Container>,
    may: Vec<(String, String, Port)>,
    pings: Outcome,
    patience: Duration,
}

/// One pair on one port.
struct Try<'a> {
    from: &'a Container,
    to: &'a Container,
    /// `None` for a ping.
    port: Option<Port>,
    expected: Outcome,
}

impl<'a> Matrix<'a> {
    pub(crate) fn of(containers: impl IntoIterator<Item = &'a Container>) -> Self {
        let containers = containers.into_iter().collect();
        Self { containers, may: Vec::new(), pings: Outcome::Refused, patience: poll::PATIENCE }
    }

    /// This one is allowed. What is not allowed is forbidden.
    pub fn may(mut self, from: &Container, to: &Container, port: Port) -> Self {
        self.may.push((from.name().to_owned(), to.name().to_owned(), port));
        self
    }

    /// Pings pass, since what no policy allows is only watched.
    pub fn pings_pass(mut self) -> Self {
        self.pings = Outcome::Open;
        self
    }

    /// Must hold sooner than other things.
    pub fn within(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Tries everything, until all of it is as expected in one sweep.
    pub fn hold(&self) -> Result<()> {
        ensure!(self.containers.len() > 1, "a matrix of one container expects nothing");
        for (from, to, port) in &self.may {
            let known = |name: &str| self.containers.iter().find(|known| known.name() == name);
            let answers = known(to).is_some_and(|to| to.ports().any(|other| other == *port));
            ensure!(
                known(from).is_some() && answers,
                "{from} → {to} {port} is not in the matrix: it would never be tried"
            );
        }
        poll::within(self.patience, "the reachability matrix holds", || self.sweep())
    }

    /// Once. An error shows every pair, expected and seen.
    pub fn sweep(&self) -> Result<()> {
        let tries = self.tries();
        let seen: Vec<Result<Dialled>> = thread::scope(|scope| {
            let running: Vec<_> = tries.iter().map(|this| scope.spawn(|| this.seen())).collect();
            running
                .into_iter()
                .map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let (mut table, mut wrong) = (String::new(), 0);
        for (this, seen) in tries.iter().zip(seen) {
            let fault = this.fault(&seen);
            wrong += usize::from(fault.is_some());
            let seen = seen.map_or_else(|error| format!("{error:#}"), |seen| seen.to_string());
            let (from, to) = (this.from.name(), this.to.name());
            let port = this.port.map_or_else(|| "ping".to_owned(), |port| port.to_string());
            table.push_str(&format!(
                "\n  {} {from:>14} → {to:<14} {port:<9} expected {:<8} seen {seen} {}",
                if fault.is_some() { "✗" } else { "✓" },
                this.expected.to_string(),
                fault.unwrap_or_default(),
            ));
        }
        ensure!(wrong == 0, "{wrong} of {} differ{table}", tries.len());
        Ok(())
    }

    fn tries(&self) -> Vec<Try<'a>> {
        let mut tries = Vec::new();
        for &from in &self.containers {
            for &to in self.containers.iter().filter(|to| to.name() != from.name()) {
                for port in to.ports() {
                    let may = self.may.iter().any(|(source, destination, allowed)| {
                        source == from.name() && destination == to.name() && *allowed == port
                    });
                    let expected = if may { Outcome::Open } else { Outcome::Refused };
                    tries.push(Try { from, to, port: Some(port), expected });
                }
                tries.push(Try { from, to, port: None, expected: self.pings });
            }
        }
        tries
    }
}

impl Try<'_> {
    fn seen(&self) -> Result<Dialled> {
        let to = self.to.address();
        match self.port {
            Some(port) => self.from.dial(to, port),
            None => {
                let (outcome, ms) = (self.from.ping(to)?, 0.0);
                Ok(Dialled { outcome, ms, server: None, peer_sees: None })
            }
        }
    }

    /// Why what was seen is not what was expected. An open port must be answered by the right
    /// container, which must see the caller's own overlay address.
    fn fault(&self, seen: &Result<Dialled>) -> Option<String> {
        let Ok(Dialled { outcome, ms: _, server, peer_sees }) = seen else {
            return Some("(could not be tried)".into());
        };
        if *outcome != self.expected {
            return Some("←".into());
        }
        if *outcome != Outcome::Open || self.port.is_none() {
            return None;
        }
        if server.as_deref() != Some(self.to.name()) {
            return Some(format!("← answered by {server:?}"));
        }
        let (own, seen) = (self.from.address(), *peer_sees);
        (seen != Some(own.into())).then(|| format!("← seen as {seen:?}, is {own}"))
    }
}
