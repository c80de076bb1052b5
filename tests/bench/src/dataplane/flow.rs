//! What packets of one container to another meet: how long the first of a flow and those after it are
//! under way, how many connections can be made, how much passes through one.
//!
//! Both ends are threads of ours, each in its container's namespace and on a processor of its own. The
//! kernel answers the first packet of a connection without waking anybody, so the time to connect is
//! the round trip of that packet. Connections are ended by a reset, so that none of them lingers.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    libc::linger,
    sched::{CpuSet, sched_setaffinity},
    sys::socket::{Backlog, listen, setsockopt, sockopt::Linger},
    unistd::Pid,
};
use serde::Serialize;

use super::{
    cell::Cell,
    shape::{PORT, SERVER},
};
use crate::outcome::rounded;

/// What is written at once.
const CHUNK: usize = 128 << 10;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4000;

/// A packet that takes longer than this is lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a client wants, by its first byte.
const ECHO: u8 = b'e';
const TAKE: u8 = b't';
const END: u8 = b'q';

/// How much is measured at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    /// New flows, and round trips of one that stands.
    pub samples: usize,
    /// How long connections are made, and bytes sent; and how long at most samples are taken.
    pub duration: Duration,
}

/// What one look at a cell came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Flows {
    /// The first packet of a flow, there and back.
    pub first_us: f64,
    /// The same for a packet of an established connection.
    pub later_us: f64,
    pub connections_per_second: f64,
    pub gbit_per_second: f64,
}

/// Measures once, between the two containers of `cell`.
pub(super) fn measure(cell: &Cell, effort: Effort) -> Result<Flows> {
    cell.forget_connections()?;
    let to = SocketAddr::from((SERVER, PORT));
    serving(cell, to, || {
        cell.client.inside(|| -> Result<Flows> {
            pin(0)?;
            Ok(Flows {
                first_us: first_packets(to, effort)?,
                later_us: later_packets(to, effort)?,
                connections_per_second: connections(to, effort.duration)?,
                gbit_per_second: throughput(to, effort.duration)?,
            })
        })?
    })
}

/// Does `what` while the server's container serves `at`.
pub(super) fn serving<T>(
    cell: &Cell,
    at: SocketAddr,
    what: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let listener = cell.server.inside(|| TcpListener::bind(at))?;
    let listener = listener.with_context(|| format!("listening at {at} in a container"))?;
    listen(&listener, Backlog::new(BACKLOG)?)?;
    thread::scope(|scope| {
        let server = scope.spawn(|| cell.server.inside(|| serve(&listener))?);
        let done = what();
        // From within the same container, where no rule is in the way.
        cell.server.inside(|| TcpStream::connect(at)?.write_all(&[END]))??;
        server.join().expect("what serves returns errors")?;
        done
    })
}

fn serve(listener: &TcpListener) -> Result<()> {
    pin(1)?;
    let mut buffer = vec![0; CHUNK];
    loop {
        let (mut stream, _) = listener.accept().context("accepting a connection")?;
        let mut want = [0];
        // A client that only connects resets the connection.
        if stream.read(&mut want).unwrap_or(0) == 0 {
            continue;
        }
        stream.set_nodelay(true)?;
        match want[0] {
            ECHO => {
                while stream.read(&mut want).unwrap_or(0) > 0 {
                    stream.write_all(&want)?;
                }
            }
            TAKE => {
                while stream.read(&mut buffer)? > 0 {}
                stream.write_all(&want)?;
            }
            _ => return Ok(()),
        }
    }
}

/// Has the calling thread stay on one processor, as far as there are so many.
fn pin(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor % thread::available_parallelism()?.get())?;
    sched_setaffinity(Pid::from_raw(0), &set).context("choosing a processor")
}

fn first_packets(to: SocketAddr, effort: Effort) -> Result<f64> {
    let mut took = Vec::with_capacity(effort.samples);
    let start = Instant::now();
    while took.len() < effort.samples && start.elapsed() < effort.duration {
        let began = Instant::now();
        let stream = connect(to)?;
        took.push(micros(began.elapsed()));
        reset(stream)?;
    }
    Ok(median(took))
}

fn later_packets(to: SocketAddr, effort: Effort) -> Result<f64> {
    let mut stream = connect(to)?;
    stream.set_nodelay(true)?;
    stream.write_all(&[ECHO])?;
    let mut took = Vec::with_capacity(effort.samples);
    let start = Instant::now();
    while took.len() < effort.samples && start.elapsed() < effort.duration {
        let began = Instant::now();
        stream.write_all(&[0])?;
        stream.read_exact(&mut [0]).context("waiting for an echo")?;
        took.push(micros(began.elapsed()));
    }
    reset(stream)?;
    Ok(median(took))
}

fn connections(to: SocketAddr, duration: Duration) -> Result<f64> {
    let began = Instant::now();
    let mut made = 0u32;
    while began.elapsed() < duration {
        reset(connect(to)?)?;
        made += 1;
    }
    Ok(f64::from(made) / began.elapsed().as_secs_f64())
}

fn throughput(to: SocketAddr, duration: Duration) -> Result<f64> {
    let mut stream = connect(to)?;
    stream.write_all(&[TAKE])?;
    let (chunk, mut sent) = (vec![0; CHUNK], 0);
    let began = Instant::now();
    while began.elapsed() < duration {
        stream.write_all(&chunk)?;
        sent += chunk.len();
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_exact(&mut [0]).context("waiting until all has been taken")?;
    let seconds = began.elapsed().as_secs_f64();
    reset(stream)?;
    Ok(sent as f64 * 8.0 / 1e9 / seconds)
}

/// Whether a connection to `to` is let in; one that is refused is told so at once.
pub(super) fn is_let_in(to: SocketAddr) -> bool {
    TcpStream::connect_timeout(&to, PATIENCE).map(reset).is_ok()
}

fn connect(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(to).with_context(|| format!("connecting to {to}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn reset(stream: TcpStream) -> Result<()> {
    setsockopt(&stream, Linger, &linger { l_onoff: 1, l_linger: 0 })?;
    drop(stream);
    Ok(())
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// What half of `numbers` are below of; 0 if there are none.
pub(super) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

/// The median of each number on its own.
pub(super) fn typical(of: &[Flows]) -> Flows {
    let each = |number: fn(&Flows) -> f64| median(of.iter().map(number).collect());
    Flows {
        first_us: each(|flows| flows.first_us),
        later_us: each(|flows| flows.later_us),
        connections_per_second: each(|flows| flows.connections_per_second),
        gbit_per_second: each(|flows| flows.gbit_per_second),
    }
}

impl Flows {
    /// How many times as much each number is.
    pub fn beside(&self, other: &Self) -> Self {
        Self {
            first_us: self.first_us / other.first_us,
            later_us: self.later_us / other.later_us,
            connections_per_second: self.connections_per_second / other.connections_per_second,
            gbit_per_second: self.gbit_per_second / other.gbit_per_second,
        }
    }

    /// To three decimals.
    pub fn rounded(&self) -> Self {
        Self {
            first_us: rounded(self.first_us),
            later_us: rounded(self.later_us),
            connections_per_second: rounded(self.connections_per_second),
            gbit_per_second: rounded(self.gbit_per_second),
        }
    }
}
