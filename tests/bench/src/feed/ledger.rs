//! Which cells do not hold yet what concerns them, and how long it took those that do. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use policy::{AppGuid, Policy, TaggedPolicy, Version};
use policy_client::internal::follow::Counts;
use serde::Serialize;

use super::swarm::{Event, News};
use crate::outcome::rounded;

/// Longer delays than ten minutes are not told apart.
const LONGEST_MICROS: u64 = 600_000_000;

/// What is known of every cell, and of the changes since [`begin`](Ledger::begin).
pub(super) struct Ledger {
    cells: Vec<Cell>,
    waiting: BTreeMap<usize, Vec<Written>>,
    since_answer: Histogram<u64>,
    since_request: Histogram<u64>,
    changes: u64,
    concerned: u64,
    woken: u64,
    early: u64,
    wrong: u64,
    missed: u64,
    before: Counts,
}

#[derive(Default)]
struct Cell {
    holds: Option<(News, Instant)>,
    counts: Counts,
}

/// A change the server has answered.
#[derive(Clone)]
pub(super) struct Written {
    pub policy: Policy,
    /// Whether there is such a policy now.
    pub exists: bool,
    pub version: Version,
    /// When the request was sent for the first time.
    pub asked: Instant,
    /// When its answer was read.
    pub answered: Instant,
}

/// How changes reached those they concern.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Delays {
    pub changes: u64,
    /// Cells a change concerned, on average.
    pub concerned: f64,
    /// Cells that were told something before their time was over, on average.
    pub woken: f64,
    /// From the answer to the POST to the cell's holding the change.
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub last_ms: f64,
    /// From sending the POST.
    pub p50_from_request_ms: f64,
    pub last_from_request_ms: f64,
    /// Cells that held a change before its POST was answered; they count as 0 ms.
    pub early: u64,
    /// Cells whose policies were not what their version says.
    pub wrong: u64,
    /// Cells that did not hold a change in time.
    pub missed: u64,
    /// How long answers were on average that told everything, and those that told changes.
    pub whole_bytes: Option<u64>,
    pub delta_bytes: Option<u64>,
    pub wholes: u64,
    pub deltas: u64,
    /// Within how many milliseconds which share held a change, for a plot.
    pub curve: Vec<(f64, f64)>,
}

impl Ledger {
    pub(super) fn new(cells: usize) -> Self {
        let empty =
            || Histogram::new_with_bounds(1, LONGEST_MICROS, 3).expect("the bounds are fit");
        Self {
            cells: (0..cells).map(|_| Cell::default()).collect(),
            waiting: BTreeMap::new(),
            since_answer: empty(),
            since_request: empty(),
            changes: 0,
            concerned: 0,
            woken: 0,
            early: 0,
            wrong: 0,
            missed: 0,
            before: Counts::default(),
        }
    }

    /// Forgets the changes so far, and keeps what cells hold.
    pub(super) fn begin(&mut self) {
        let cells = std::mem::take(&mut self.cells);
        *self = Self { before: total(&cells), ..Self::new(0) };
        self.cells = cells;
    }

    /// A cell told something of itself.
    pub(super) fn note(&mut self, event: Event) {
        let Event { cell, at, news, counts } = event;
        self.cells[cell].counts = counts;
        let Some(news) = news else { return };
        self.woken += u64::from(news.was_woken);
        self.cells[cell].holds = Some((news, at));
        for written in self.waiting.remove(&cell).unwrap_or_default() {
            self.settle(cell, written);
        }
    }

    /// A change was made that concerns these cells.
    pub(super) fn expect(&mut self, written: &Written, concerned: &BTreeSet<usize>) {
        self.changes += 1;
        self.concerned += concerned.len() as u64;
        for cell in concerned {
            self.settle(*cell, written.clone());
        }
    }

    /// Gives up those that do not hold yet what they should.
    pub(super) fn give_up(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        self.missed += waiting.values().map(|all| all.len() as u64).sum::<u64>();
    }

    /// Whether every cell holds what it should.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether every cell holds anything.
    pub(super) fn is_everybody_there(&self) -> bool {
        self.cells.iter().all(|cell| cell.holds.is_some())
    }

    /// How many cells hold other policies than those of `all` that are about their apps.
    pub(super) fn differing(
        &self,
        all: &[TaggedPolicy],
        apps: impl Fn(usize) -> BTreeSet<AppGuid>,
    ) -> usize {
        let mut of_app = HashMap::<&AppGuid, Vec<&TaggedPolicy>>::new();
        for tagged in all {
            of_app.entry(&tagged.policy.source).or_default().push(tagged);
            of_app.entry(&tagged.policy.destination).or_default().push(tagged);
        }
        let differs = |cell: usize| {
            let apps = apps(cell);
            let wanted = apps.iter().filter_map(|app| of_app.get(app)).flatten().copied();
            let wanted: BTreeSet<&TaggedPolicy> = wanted.collect();
            let holds = self.cells[cell].holds.as_ref();
            !holds.is_some_and(|(news, _)| news.policies.iter().eq(wanted))
        };
        (0..self.cells.len()).filter(|cell| differs(*cell)).count()
    }

    /// Questions that came to nothing, of all cells since the beginning.
    pub(super) fn failures(&self) -> u64 {
        total(&self.cells).failures - self.before.failures
    }

    pub(super) fn delays(&self) -> Delays {
        let (now, before) = (total(&self.cells), self.before);
        let (wholes, deltas) = (now.wholes - before.wholes, now.deltas - before.deltas);
        let each = |count: u64| rounded(count as f64 / self.changes.max(1) as f64);
        Delays {
            changes: self.changes,
            concerned: each(self.concerned),
            woken: each(self.woken),
            p50_ms: milliseconds(&self.since_answer, 0.5),
            p99_ms: milliseconds(&self.since_answer, 0.99),
            p999_ms: milliseconds(&self.since_answer, 0.999),
            last_ms: milliseconds(&self.since_answer, 1.0),
            p50_from_request_ms: milliseconds(&self.since_request, 0.5),
            last_from_request_ms: milliseconds(&self.since_request, 1.0),
            early: self.early,
            wrong: self.wrong,
            missed: self.missed,
            whole_bytes: (now.whole_bytes - before.whole_bytes).checked_div(wholes),
            delta_bytes: (now.delta_bytes - before.delta_bytes).checked_div(deltas),
            wholes,
            deltas,
            curve: curve(&self.since_answer),
        }
    }

    /// Takes the time if the cell holds the change, and else remembers that it should.
    fn settle(&mut self, cell: usize, written: Written) {
        let holding = self.cells[cell].holds.as_ref().filter(|(news, _)| {
            news.version.as_ref().is_some_and(|version| version.includes(&written.version))
        });
        let Some((news, at)) = holding else {
            self.waiting.entry(cell).or_default().push(written);
            return;
        };
        let there = news.policies.iter().any(|tagged| tagged.policy == written.policy);
        if there != written.exists {
            self.wrong += 1;
        }
        if *at < written.answered {
            self.early += 1;
        }
        record(&mut self.since_answer, at.saturating_duration_since(written.answered));
        record(&mut self.since_request, at.saturating_duration_since(written.asked));
    }
}

fn record(histogram: &mut Histogram<u64>, delay: Duration) {
    histogram.saturating_record(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX));
}

fn milliseconds(histogram: &Histogram<u64>, share: f64) -> f64 {
    rounded(histogram.value_at_quantile(share) as f64 / 1000.0)
}

fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let shares = (1..=99).map(|percent| f64::from(percent) / 100.0);
    let point = |share| (milliseconds(histogram, share), share);
    if histogram.is_empty() { Vec::new() } else { shares.chain([0.999, 1.0]).map(point).collect() }
}

fn total(cells: &[Cell]) -> Counts {
    cells.iter().fold(Counts::default(), |mut total, Cell { counts, .. }| {
        total.wholes += counts.wholes;
        total.whole_bytes += counts.whole_bytes;
        total.deltas += counts.deltas;
        total.delta_bytes += counts.delta_bytes;
        total.failures += counts.failures;
        total
    })
}

#[cfg(test)]
mod tests {
    use policy::Tag;

    use super::*;

    fn policy(destination: &str) -> Policy {
        Policy {
            source: "web".parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: policy::Protocol::Tcp,
            ports: "80".parse().unwrap(),
        }
    }

    fn news(revision: u64, destinations: &[&str]) -> News {
        let tagged = |destination: &&str| TaggedPolicy {
            policy: policy(destination),
            source_tag: Tag::new(1).unwrap(),
            destination_tag: Tag::new(2).unwrap(),
        };
        let policies = destinations.iter().map(tagged).collect();
        let version = Some(format!("x.{revision}").parse().unwrap());
        News { policies, version, was_woken: true }
    }

    fn event(cell: usize, at: Instant, news: News) -> Event {
        Event { cell, at, news: Some(news), counts: Counts::default() }
    }

    fn written(revision: u64, destination: &str, answered: Instant) -> Written {
        Written {
            policy: policy(destination),
            exists: true,
            version: format!("x.{revision}").parse().unwrap(),
            asked: answered - Duration::from_millis(5),
            answered,
        }
    }

    fn milliseconds(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_change_takes_until_the_last_of_those_it_concerns_holds_it() {
        let (mut ledger, start) = (Ledger::new(3), Instant::now());
        ledger.note(event(0, start, news(1, &[])));
        ledger.begin();
        ledger.expect(&written(2, "db", start), &[0, 2].into());
        ledger.note(event(0, start + milliseconds(10), news(2, &["db"])));
        assert!(!ledger.is_settled());
        ledger.note(event(1, start + milliseconds(20), news(2, &["db"])));
        ledger.note(event(2, start + milliseconds(30), news(3, &["cache", "db"])));
        assert!(ledger.is_settled() && ledger.is_everybody_there());
        let delays = ledger.delays();
        assert_eq!((delays.concerned, delays.woken, delays.wrong), (2.0, 3.0, 0));
        let about = |value: f64, wanted: f64| (value - wanted).abs() < wanted / 100.0;
        assert!(about(delays.last_ms, 30.0), "{delays:?}");
        assert!(about(delays.last_from_request_ms, 35.0), "{delays:?}");
    }

    #[test]
    fn who_is_sooner_than_the_answer_took_no_time() {
        let (mut ledger, start) = (Ledger::new(1), Instant::now());
        ledger.note(event(0, start, news(2, &["db"])));
        ledger.expect(&written(2, "db", start + milliseconds(1)), &[0].into());
        let delays = ledger.delays();
        assert_eq!((delays.early, delays.missed), (1, 0));
        assert!(delays.last_ms < 0.01, "{delays:?}");
    }

    #[test]
    fn who_never_holds_a_change_missed_it_and_who_holds_another_is_wrong() {
        let (mut ledger, start) = (Ledger::new(2), Instant::now());
        ledger.expect(&written(2, "db", start), &[0, 1].into());
        ledger.note(event(0, start, news(2, &["cache"])));
        ledger.give_up();
        let delays = ledger.delays();
        assert_eq!((delays.wrong, delays.missed), (1, 1));
        let apps = |_: usize| ["web".parse().unwrap()].into();
        let all: Vec<_> = news(2, &["cache"]).policies.iter().cloned().collect();
        assert_eq!(ledger.differing(&all, apps), 1, "the other holds nothing");
        assert_eq!(ledger.differing(&all, |_| BTreeSet::new()), 2);
    }
}
