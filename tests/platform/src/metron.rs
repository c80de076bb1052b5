//! The metron agent: takes datagrams of dropsonde, and refuses what the one of the peer's test-suite
//! refuses (spec/policy-server.md §11, §14.1).

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prost::Message;
use tokio::{
    net::UdpSocket,
    task::JoinHandle,
    time::{Instant, sleep},
};

/// What is waited for must arrive within this; the peer's suite gives it as long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// The longest datagram that may be sent, and then one byte to see that it was longer.
const BUFFER: usize = 1024;

/// A metron agent on loopback. Ends when dropped; a test that sent it nonsense fails at the latest
/// then.
pub struct Metron {
    address: SocketAddr,
    memory: Arc<Mutex<Memory>>,
    listening: JoinHandle<()>,
}

/// What a datagram said.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// Which job said it.
    pub origin: String,
    /// When, in nanoseconds since 1970.
    pub timestamp: i64,
    /// What.
    pub event: Event,
}

/// The kinds of event that jobs send.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// How much there is of something.
    Value {
        /// Of what.
        name: String,
        /// How much.
        value: f64,
        /// In what it is counted.
        unit: String,
    },
    /// Something happened.
    Count {
        /// What.
        name: String,
        /// How often since it was last said.
        delta: u64,
    },
    /// A request, as instrumented HTTP clients and servers of the platform tell of it.
    HttpStartStop,
}

#[derive(Default)]
struct Memory {
    heard: Vec<Heard>,
    faults: Vec<String>,
}

/// The envelope as its receivers define it; proto2 makes them refuse one without a required field.
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(string, optional, tag = "1")]
    origin: Option<String>,
    #[prost(int32, optional, tag = "2")]
    event_type: Option<i32>,
    #[prost(int64, optional, tag = "6")]
    timestamp: Option<i64>,
    #[prost(message, optional, tag = "9")]
    value: Option<ValueMetric>,
    #[prost(message, optional, tag = "10")]
    count: Option<CounterEvent>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueMetric {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(double, optional, tag = "2")]
    value: Option<f64>,
    #[prost(string, optional, tag = "3")]
    unit: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct CounterEvent {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(uint64, optional, tag = "2")]
    delta: Option<u64>,
}

impl Metron {
    /// Starts listening, on a port of its own.
    ///
    /// # Panics
    /// If loopback has no port left.
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = socket.local_addr().expect("a bound socket has an address");
        let memory = Arc::<Mutex<Memory>>::default();
        let listening = tokio::spawn(listen(socket, memory.clone()));
        Self { address, memory, listening }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything heard so far, in order.
    pub fn heard(&self) -> Vec<Heard> {
        lock(&self.memory).heard.clone()
    }

    /// What was heard of `name` so far, in order.
    pub fn heard_of(&self, name: &str) -> Vec<Heard> {
        let mut heard = self.heard();
        heard.retain(|heard| heard.event.name() == Some(name));
        heard
    }

    /// What was wrong with datagrams so far.
    pub fn faults(&self) -> Vec<String> {
        lock(&self.memory).faults.clone()
    }

    /// The first that was, or will be, heard of `name`.
    ///
    /// # Panics
    /// After five seconds without, telling which names were heard instead.
    pub async fn hears(&self, name: &str) -> Heard {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(first) = self.heard_of(name).into_iter().next() {
                return first;
            }
            let heard = self.heard();
            let names: Vec<_> = heard.iter().filter_map(|heard| heard.event.name()).collect();
            let faults = self.faults();
            assert!(
                Instant::now() < deadline,
                "metron did not hear {name}, but {names:?}; it was sent {faults:?}"
            );
            sleep(PAUSE).await;
        }
    }
}

impl Drop for Metron {
    fn drop(&mut self) {
        self.listening.abort();
        let faults = self.faults();
        assert!(std::thread::panicking() || faults.is_empty(), "metron was sent {faults:?}");
    }
}

impl Event {
    /// What it is about, if it says.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Value { name, .. } | Self::Count { name, .. } => Some(name),
            Self::HttpStartStop => None,
        }
    }
}

async fn listen(socket: UdpSocket, memory: Arc<Mutex<Memory>>) {
    loop {
        let mut buffer = [0; BUFFER];
        let taken = match socket.recv_from(&mut buffer).await {
            Ok((length, _)) => understand(&buffer[..length]),
            Err(error) => Err(format!("a datagram that could not be taken: {error}")),
        };
        let mut memory = lock(&memory);
        match taken {
            Ok(heard) => memory.heard.push(heard),
            Err(fault) => memory.faults.push(fault),
        }
    }
}

fn understand(datagram: &[u8]) -> Result<Heard, String> {
    match datagram.len() {
        0 => return Err("an empty datagram".to_owned()),
        BUFFER.. => return Err("a datagram that is too long".to_owned()),
        _ => {}
    }
    let envelope = Envelope::decode(datagram).map_err(|error| format!("no envelope: {error}"))?;
    let incomplete = || format!("an envelope that lacks a required field: {envelope:?}");
    let event = match envelope.event_type {
        Some(4) => Some(Event::HttpStartStop),
        Some(6) => envelope.value.clone().and_then(Event::of_value),
        Some(7) => envelope.count.clone().and_then(Event::of_count),
        Some(other) => return Err(format!("an event of type {other}")),
        None => None,
    };
    Ok(Heard {
        origin: envelope.origin.clone().ok_or_else(incomplete)?,
        timestamp: envelope.timestamp.ok_or_else(incomplete)?,
        event: event.ok_or_else(incomplete)?,
    })
}

impl Event {
    fn of_value(metric: ValueMetric) -> Option<Self> {
        let ValueMetric { name, value, unit } = metric;
        Some(Self::Value { name: name?, value: value?, unit: unit? })
    }

    fn of_count(event: CounterEvent) -> Option<Self> {
        let CounterEvent { name, delta } = event;
        Some(Self::Count { name: name?, delta: delta? })
    }
}

/// A panic elsewhere leaves a whole memory behind.
fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value of 1.5 seconds from `job`, of the type in `kind`.
    fn datagram(kind: u8) -> Vec<u8> {
        let mut bytes = b"\x0a\x03job\x10".to_vec();
        bytes.push(kind);
        bytes.extend(b"\x30\x07\x4a\x18\x0a\x04name\x11\0\0\0\0\0\0\xf8\x3f\x1a\x07seconds");
        bytes
    }

    #[test]
    fn a_value_is_understood() {
        let expected = Heard {
            origin: "job".to_owned(),
            timestamp: 7,
            event: Event::Value { name: "name".to_owned(), value: 1.5, unit: "seconds".to_owned() },
        };
        assert_eq!(understand(&datagram(6)), Ok(expected));
    }

    #[test]
    fn what_the_real_one_would_not_take_is_a_fault() {
        let too_long = [datagram(6), vec![0; 1024]].concat();
        for (bytes, says) in [
            (vec![], "an empty datagram"),
            (too_long, "a datagram that is too long"),
            (b"\xff".to_vec(), "no envelope"),
            (datagram(5), "an event of type 5"),
            (datagram(7), "lacks a required field"),
            (b"\x0a\x03job\x10\x07\x30\x07\x52\x06\x0a\x04name".to_vec(), "lacks a required field"),
        ] {
            let fault = understand(&bytes).unwrap_err();
            assert!(fault.contains(says), "{fault}");
        }
    }

    #[tokio::test]
    #[should_panic(expected = "metron was sent [\"an empty datagram\"]")]
    async fn a_test_that_sends_nonsense_fails() {
        let metron = Metron::start().await;
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback has a free port");
        socket.send_to(&[], metron.address()).await.expect("loopback takes datagrams");
        while metron.faults().is_empty() {
            tokio::task::yield_now().await;
        }
    }
}
