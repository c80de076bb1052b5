//! Who waits for what: a change wakes those it concerns, and nobody else.
//!
//! Whoever waits registers first and looks at the snapshot then, and a snapshot is swapped before
//! anybody is woken; so no change is lost between a look and a wait.

mod by_key;
mod questions;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::yield_now,
    time::{Instant, sleep},
};

use crate::snapshot::{Subject, Topic, Touched, Which};
use by_key::ByKey;
use questions::Questions;

/// So many are woken at once when something changes: most changes concern a few cells, which need not
/// wait for one another.
const FIRST_WAVE: usize = 32;

/// The others are woken in waves of so many, so that thousands of answers leave room on the CPU for the
/// change that comes next, and for those who ask something else.
const WAVE: usize = 64;

/// From one wave to the next.
const PAUSE: Duration = Duration::from_millis(2);

/// What it takes to answer one of many, and to read its next question. Who is told what many are told
/// spreads its next question over so long for each of them, so that answers come first.
const EACH: Duration = Duration::from_micros(250);

/// Nobody is asked to rest for longer.
const LONGEST_REST: Duration = Duration::from_secs(2);

/// All who wait.
#[derive(Default)]
pub(crate) struct Waiting {
    index: Mutex<Index>,
    /// Somebody is due.
    due: Notify,
}

#[derive(Default)]
struct Index {
    last: Id,
    waiters: HashMap<Id, Arc<Waiter>>,
    questions: Questions,
    everything: BTreeSet<Id>,
    leases: BTreeSet<Id>,
    by_space: ByKey<String, Id>,
    security_groups: BTreeSet<Id>,
    /// Who is to be woken, in this order.
    due: VecDeque<Id>,
    /// When many were woken last, and how long they rest.
    crowd: Option<(Instant, Duration)>,
}

type Id = u64;

#[derive(Default)]
struct Waiter {
    /// When what they wait for happened.
    since: Mutex<Option<Instant>>,
    woken: Notify,
}

/// Somebody who waits for as long as this lives.
pub(crate) struct Registration<'a> {
    waiting: &'a Waiting,
    topic: &'a Topic,
    id: Id,
    waiter: Arc<Waiter>,
}

impl Waiting {
    /// Registers somebody who wants to hear of changes of `topic`.
    pub(crate) fn register<'a>(&'a self, topic: &'a Topic) -> Registration<'a> {
        let waiter = Arc::<Waiter>::default();
        let id = self.lock().register(topic, waiter.clone());
        Registration { waiting: self, topic, id, waiter }
    }

    /// Lets those be woken whom a change concerns; returns how many they are. They hear of it when
    /// [`spread`](Self::spread) comes to them.
    pub(crate) fn wake(&self, touched: &Touched) -> usize {
        let woken = self.lock().wake(touched, Instant::now());
        if woken > 0 {
            self.due.notify_one();
        }
        woken
    }

    /// How long who is answered now may rest before it asks again, on average half of it: nothing, unless
    /// many were woken just now.
    pub(crate) fn rest(&self) -> Option<Duration> {
        let (since, rest) = self.lock().crowd?;
        (since.elapsed() < 2 * rest).then_some(rest)
    }

    /// Until when those rest who were woken when many were.
    pub(crate) fn rests_until(&self) -> Option<Instant> {
        self.lock().crowd.map(|(since, rest)| since + rest)
    }

    /// How many wait.
    pub(crate) fn count(&self) -> usize {
        self.lock().waiters.len()
    }

    /// Wakes those who are due, until dropped.
    pub(crate) async fn spread(&self) {
        loop {
            self.due.notified().await;
            let mut any = self.lock().release(FIRST_WAVE);
            yield_now().await;
            while any {
                any = self.lock().release(WAVE);
                sleep(PAUSE).await;
            }
        }
    }

    /// A panic elsewhere leaves the index whole enough: at worst somebody is woken for nothing.
    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration<'_> {
    /// Waits for a change; returns how long ago it happened.
    pub(crate) async fn woken(&self) -> Duration {
        self.waiter.woken.notified().await;
        let since = self.waiter.lock().take();
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.waiting.lock().forget(self.topic, self.id);
    }
}

impl Index {
    fn register(&mut self, topic: &Topic, waiter: Arc<Waiter>) -> Id {
        self.last += 1;
        let id = self.last;
        self.waiters.insert(id, waiter);
        match topic {
            Topic::Policies(subject) => match &**subject {
                Subject::Everything => _ = self.everything.insert(id),
                Subject::Apps(_) => self.questions.register(subject, id),
            },
            Topic::Leases => _ = self.leases.insert(id),
            Topic::SecurityGroups(spaces) => {
                self.security_groups.insert(id);
                self.by_space.insert(spaces, id);
            }
        }
        id
    }

    fn forget(&mut self, topic: &Topic, id: Id) {
        self.waiters.remove(&id);
        match topic {
            Topic::Policies(subject) => match &**subject {
                Subject::Everything => _ = self.everything.remove(&id),
                Subject::Apps(_) => self.questions.forget(subject, id),
            },
            Topic::Leases => _ = self.leases.remove(&id),
            Topic::SecurityGroups(spaces) => {
                self.security_groups.remove(&id);
                self.by_space.remove(spaces, &id);
            }
        }
    }

    fn wake(&mut self, touched: &Touched, now: Instant) -> usize {
        let mut concerned: Vec<Id> = self.concerned(touched).into_iter().collect();
        // Each change begins elsewhere, so that nobody is always the last to hear.
        if !concerned.is_empty() {
            let first = fastrand::usize(..concerned.len());
            concerned.rotate_left(first);
        }
        if concerned.len() > FIRST_WAVE {
            let count = u32::try_from(concerned.len()).unwrap_or(u32::MAX);
            self.crowd = Some((now, EACH.saturating_mul(count).min(LONGEST_REST)));
        }
        for id in &concerned {
            let Some(waiter) = self.waiters.get(id) else { continue };
            let mut since = waiter.lock();
            if since.is_none() {
                *since = Some(now);
                self.due.push_back(*id);
            }
        }
        concerned.len()
    }

    fn concerned(&self, Touched { apps, leases, spaces }: &Touched) -> BTreeSet<Id> {
        let mut concerned = BTreeSet::new();
        match apps {
            Which::Some(apps) => concerned.extend(self.questions.about(apps)),
            Which::All => concerned.extend(self.questions.about_any()),
        }
        if !apps.is_empty() {
            concerned.extend(&self.everything);
        }
        if *leases {
            concerned.extend(&self.leases);
        }
        match spaces {
            Which::Some(spaces) => concerned.extend(self.by_space.any_of(spaces)),
            Which::All => concerned.extend(&self.security_groups),
        }
        concerned
    }

    /// Wakes the next `count` who are due and still there. Whether there may be more.
    fn release(&mut self, count: usize) -> bool {
        let mut left = count;
        while left > 0 {
            let Some(id) = self.due.pop_front() else { return false };
            if let Some(waiter) = self.waiters.get(&id) {
                waiter.woken.notify_one();
                left -= 1;
            }
        }
        true
    }
}

impl Waiter {
    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn apps(names: &[&str]) -> Topic {
        let apps = names.iter().map(|name| name.parse().unwrap()).collect();
        Topic::Policies(Subject::Apps(apps).into())
    }

    fn spaces(names: &[&str]) -> Topic {
        let names: BTreeSet<_> = names.iter().map(|&name| name.to_owned()).collect();
        Topic::SecurityGroups(names.into())
    }

    fn touching(names: &[&str]) -> Touched {
        let apps = names.iter().map(|name| name.parse().unwrap()).collect();
        Touched { apps: Which::Some(apps), ..Touched::default() }
    }

    /// Which of `topics` are woken by this.
    fn woken(topics: &[Topic], touched: &Touched) -> Vec<usize> {
        let waiting = Waiting::default();
        let waiters: Vec<_> = topics.iter().map(|topic| waiting.register(topic)).collect();
        let count = waiting.wake(touched);
        while waiting.lock().release(WAVE) {}
        let woken = |(place, waiter): (usize, &Registration<'_>)| {
            waiter.woken().now_or_never().map(|_| place)
        };
        let woken: Vec<_> = waiters.iter().enumerate().filter_map(woken).collect();
        assert_eq!(woken.len(), count);
        drop(waiters);
        let Index { waiters, questions, by_space, .. } = &*waiting.lock();
        assert!(waiters.is_empty() && questions.is_empty() && by_space.is_empty());
        woken
    }

    #[test]
    fn a_change_wakes_those_it_concerns_and_nobody_else() {
        let all = Topic::Policies(Subject::Everything.into());
        let topics = [
            all,
            apps(&["a", "b"]),
            apps(&["c"]),
            apps(&[]),
            Topic::Leases,
            spaces(&["s"]),
            spaces(&[]),
        ];
        let woken = |touched: &Touched| woken(&topics, touched);
        assert_eq!(woken(&touching(&["a", "b"])), [0, 1]);
        assert_eq!(woken(&touching(&["c", "x"])), [0, 2]);
        assert_eq!(woken(&touching(&["x"])), [0]);
        assert_eq!(woken(&Touched::default()), [0; 0]);
        assert_eq!(woken(&Touched { leases: true, ..Touched::default() }), [4]);
        let space = Which::Some(["s".to_owned()].into());
        assert_eq!(woken(&Touched { spaces: space, ..Touched::default() }), [5]);
        assert_eq!(woken(&Touched { spaces: Which::All, ..Touched::default() }), [5, 6]);
        // Who asks for no apps has nothing that could change.
        assert_eq!(woken(&Touched::everything()), [0, 1, 2, 4, 5, 6]);
    }

    #[tokio::test(start_paused = true)]
    async fn thousands_are_woken_in_waves_and_each_once() {
        let waiting = Waiting::default();
        let topic = apps(&["a"]);
        let waiters: Vec<_> = (0..2000).map(|_| waiting.register(&topic)).collect();
        assert_eq!(waiting.wake(&touching(&["a"])), 2000);
        assert_eq!(waiting.wake(&touching(&["a"])), 2000, "who is due stays so, once");
        let began = Instant::now();
        let mut spread = std::pin::pin!(waiting.spread());
        let mut woken = 0;
        while woken < waiters.len() {
            tokio::select! {
                () = &mut spread => unreachable!("it has no end"),
                () = sleep(Duration::from_micros(1)) => {}
            }
            let now = waiters.iter().filter_map(|waiter| waiter.woken().now_or_never()).count();
            assert!(now <= FIRST_WAVE + WAVE, "{now} at once");
            woken += now;
        }
        assert_eq!(woken, 2000);
        assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_are_told_at_once_rest_and_few_do_not() {
        let waiting = Waiting::default();
        let topics = [apps(&["a", "b"]), apps(&["a"])];
        let waiters: Vec<_> =
            (0..400).map(|number| waiting.register(&topics[number % 2])).collect();
        assert_eq!((waiting.rest(), waiting.rests_until()), (None, None));
        waiting.wake(&touching(&["a"]));
        let rest = Duration::from_millis(100);
        assert_eq!(waiting.rest(), Some(rest));
        assert_eq!(waiting.rests_until(), Some(Instant::now() + rest));
        tokio::time::advance(Duration::from_millis(200)).await;
        assert_eq!(waiting.rest(), None, "they are all back");
        drop(waiters);
        let _few: Vec<_> = (0..FIRST_WAVE).map(|_| waiting.register(&topics[0])).collect();
        waiting.wake(&touching(&["a"]));
        assert_eq!(waiting.rest(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_left_keeps_nobody_waiting() {
        let waiting = Waiting::default();
        let topic = apps(&["a"]);
        let gone: Vec<_> = (0..FIRST_WAVE).map(|_| waiting.register(&topic)).collect();
        let stays = waiting.register(&topic);
        waiting.wake(&touching(&["a"]));
        drop(gone);
        tokio::select! {
            () = waiting.spread() => unreachable!("it has no end"),
            ago = stays.woken() => assert_eq!(ago, Duration::ZERO),
        }
    }
}
