//! Clients that ask as fast as they are answered, and how long that takes.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use anyhow::Result;
use futures::future::try_join_all;
use hdrhistogram::Histogram;

use crate::client::{Call, Connection, Door};

/// Longer answers than a minute are not told apart.
const LONGEST_MICROS: u64 = 60_000_000;

/// What clients met.
pub(crate) struct Sample {
    /// Requests answered.
    pub answered: u64,
    /// Bytes of answers.
    pub bytes: u64,
    /// From the first request to the last answer.
    pub took: Duration,
    micros: Histogram<u64>,
}

impl Sample {
    /// Answers per second.
    pub(crate) fn rate(&self) -> f64 {
        self.answered as f64 / self.took.as_secs_f64()
    }

    /// Within how many milliseconds `share` of the requests were answered.
    pub(crate) fn milliseconds(&self, share: f64) -> f64 {
        self.micros.value_at_quantile(share) as f64 / 1000.0
    }
}

/// Connections for `count` clients, each of which has asked for `first` once.
pub(crate) async fn clients(door: &Door, count: usize, first: &Call) -> Result<Vec<Connection>> {
    try_join_all((0..count).map(|_| async {
        let mut connection = door.connect().await?;
        connection.ask(first.clone()).await?;
        Ok(connection)
    }))
    .await
}

/// Lets `clients` ask what `next` gives them, until it gives nothing or `duration` is over; answers
/// that are then on their way are waited for, and count.
pub(crate) async fn run(
    clients: &mut [Connection],
    duration: Duration,
    next: impl FnMut() -> Option<Call>,
) -> Result<Sample> {
    let micros = Histogram::new_with_bounds(1, LONGEST_MICROS, 3)?;
    let began = Instant::now();
    let sample = RefCell::new(Sample { answered: 0, bytes: 0, took: Duration::ZERO, micros });
    let next = RefCell::new(next);
    let asking = clients.iter_mut().map(async |client| -> Result<()> {
        while began.elapsed() < duration {
            let Some(call) = next.borrow_mut()() else { break };
            let asked = Instant::now();
            let length = client.ask(call).await?;
            sample.borrow_mut().note(asked.elapsed(), length);
        }
        Ok(())
    });
    try_join_all(asking).await?;
    let mut sample = sample.into_inner();
    sample.took = began.elapsed();
    Ok(sample)
}

impl Sample {
    fn note(&mut self, took: Duration, length: usize) {
        self.answered += 1;
        self.bytes += length as u64;
        self.micros.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
}
