use std::collections::BTreeMap;

use policy::{Life, Policy, Protocol, Tag};
use policy_store::{Change, State};
use proptest::prelude::*;

use super::*;

const APPS: [&str; 4] = ["a", "b", "c", "d"];

fn tagged(source: usize, destination: usize, port: u16) -> TaggedPolicy {
    TaggedPolicy {
        policy: Policy {
            source: APPS[source].parse().unwrap(),
            destination: APPS[destination].parse().unwrap(),
            protocol: Protocol::Tcp,
            ports: port.to_string().parse().unwrap(),
        },
        source_tag: Tag::new(source as u32 + 1).unwrap(),
        destination_tag: Tag::new(destination as u32 + 1).unwrap(),
    }
}

fn empty(revision: u64) -> Snapshot {
    let version = Version { life: Life::new("life").unwrap(), revision: Revision(revision) };
    let state = State {
        compacted: version.revision,
        version,
        policies: Vec::new(),
        leases: Vec::new(),
        security_groups: None,
        log: Vec::new(),
    };
    Snapshot::of(state, TagLength::DEFAULT)
}

fn apps(names: &[&str]) -> Subject {
    Subject::Apps(names.iter().map(|name| name.parse().unwrap()).collect())
}

fn added(revision: u64, policy: TaggedPolicy) -> (Revision, Change) {
    (Revision(revision), Change::PolicyAdded(policy))
}

fn removed(revision: u64, policy: TaggedPolicy) -> (Revision, Change) {
    (Revision(revision), Change::PolicyRemoved(policy))
}

#[test]
fn only_the_apps_concerned_get_a_new_version() {
    let snapshot = empty(7).after(vec![added(8, tagged(0, 1, 1))]).unwrap();
    let version = |names: &[&str]| snapshot.version_of(&apps(names)).revision.0;
    assert_eq!((version(&["a"]), version(&["b"]), version(&["c"]), version(&[])), (8, 8, 7, 7));
    assert_eq!(version(&["c", "a"]), 8);
    assert_eq!(snapshot.version_of(&Subject::Everything).revision.0, 8);

    let snapshot =
        snapshot.after(vec![removed(9, tagged(0, 1, 1)), added(10, tagged(2, 2, 1))]).unwrap();
    let version = |names: &[&str]| snapshot.version_of(&apps(names)).revision.0;
    assert_eq!((version(&["a"]), version(&["c"]), version(&["d"])), (9, 10, 7));
    assert_eq!(snapshot.policies_of(&apps(&["a", "b"])), []);
    assert_eq!(snapshot.apps_of(&Subject::Everything), 1, "only c has a policy");
}

#[test]
fn a_log_that_does_not_fit_is_refused() {
    let snapshot = empty(7).after(vec![added(8, tagged(0, 1, 1))]).unwrap();
    for log in [
        vec![added(10, tagged(0, 1, 2))],
        vec![added(8, tagged(0, 1, 2))],
        vec![added(9, tagged(0, 1, 1))],
        vec![removed(9, tagged(0, 1, 2))],
        vec![added(9, tagged(0, 1, 2)), added(9, tagged(0, 1, 2))],
    ] {
        assert!(snapshot.after(log.clone()).is_err(), "{log:?} was accepted");
    }
}

#[test]
fn leases_have_a_version_of_their_own() {
    let lease = |ip: &str, subnet: &str| Lease::new(ip.parse().unwrap(), subnet.parse().unwrap());
    let first = lease("10.0.0.1", "10.255.1.0/24");
    let snapshot = empty(1).after(vec![(Revision(2), Change::LeaseAdded(first))]).unwrap();
    let snapshot = snapshot.after(vec![added(3, tagged(0, 1, 1))]).unwrap();
    assert_eq!(snapshot.version_for(&Topic::Leases, None).revision.0, 2);
    assert_eq!(snapshot.version_of(&Subject::Everything).revision.0, 3);
    let again = lease("10.0.0.1", "10.255.2.0/24");
    assert!(snapshot.after(vec![(Revision(4), Change::LeaseAdded(again))]).is_err());
    let moved =
        vec![(Revision(4), Change::LeaseRemoved(first)), (Revision(4), Change::LeaseAdded(again))];
    assert_eq!(snapshot.after(moved).unwrap().leases().collect::<Vec<_>>(), [&again]);
}

proptest! {
    /// Whatever happens, a snapshot fed by the log answers like one made of the state, and an app's
    /// version changes exactly when its answer does.
    #[test]
    fn feeding_is_the_same_as_rebuilding(
        steps in prop::collection::vec((0usize..4, 0usize..4, 1u16..4), 1..60),
        asked in prop::sample::subsequence(APPS.to_vec(), 0..=4),
    ) {
        let mut snapshot = empty(0);
        let mut truth: BTreeMap<TaggedPolicy, ()> = BTreeMap::new();
        let asked = apps(&asked);
        for (revision, (source, destination, port)) in (1..).zip(steps) {
            let policy = tagged(source, destination, port);
            let step = if truth.remove(&policy).is_some() {
                removed(revision, policy)
            } else {
                truth.insert(policy.clone(), ());
                added(revision, policy)
            };
            let next = snapshot.after(vec![step]).unwrap();
            let state = State {
                version: next.version().clone(),
                policies: truth.keys().cloned().collect(),
                leases: Vec::new(),
                security_groups: None,
                log: Vec::new(),
                compacted: next.version().revision,
            };
            let rebuilt = Snapshot::of(state, TagLength::DEFAULT);
            let mut told: Vec<_> =
                next.policies_of(&asked).iter().map(|entry| entry.tagged.clone()).collect();
            told.sort();
            let concerns = |tagged: &&TaggedPolicy| {
                let Policy { source, destination, .. } = &tagged.policy;
                asked.touches(&[source.clone(), destination.clone()].into())
            };
            prop_assert_eq!(told, truth.keys().filter(concerns).cloned().collect::<Vec<_>>());
            // Asked before and after each change, so that what was put together is put together anew.
            let Subject::Apps(apps) = &asked else { unreachable!("it was made of apps") };
            let (count, lines) = next.lines_of(apps).unwrap();
            let expected: BTreeSet<_> =
                next.touching(apps).iter().map(|entry| entry.line.tagged().to_owned()).collect();
            let list: Vec<serde_json::Value> = serde_json::from_str(&format!("[{lines}]")).unwrap();
            prop_assert_eq!((count, list.len()), (expected.len(), expected.len()));
            prop_assert!(expected.iter().all(|line| lines.contains(line)), "{}", lines);
            for subject in [&asked, &Subject::Everything] {
                prop_assert_eq!(next.policies_of(subject), rebuilt.policies_of(subject));
                let changed = next.policies_of(subject) != snapshot.policies_of(subject);
                prop_assert_eq!(next.version_of(subject) != snapshot.version_of(subject), changed);
                prop_assert!(next.version_of(subject).includes(&snapshot.version_of(subject)));
            }
            snapshot = next;
        }
    }
}

/// Somebody who follows a snapshot by deltas.
#[derive(Clone)]
struct Follower {
    version: Version,
    policies: BTreeSet<TaggedPolicy>,
}

impl Follower {
    fn of(snapshot: &Snapshot, asked: &Subject) -> Self {
        let policies = snapshot.policies_of(asked);
        let policies = policies.iter().map(|entry| entry.tagged.clone()).collect();
        Self { version: snapshot.version().clone(), policies }
    }

    fn apply(&mut self, delta: Delta) {
        for entry in delta.removed {
            assert!(self.policies.remove(&entry.tagged), "{entry:?} was not there");
        }
        for entry in delta.added {
            assert!(self.policies.insert(entry.tagged.clone()), "{entry:?} was there");
        }
        assert_eq!(self.policies.len(), delta.total);
    }
}

fn state_of(version: Version, truth: &BTreeMap<TaggedPolicy, ()>) -> State {
    State {
        compacted: version.revision,
        version,
        policies: truth.keys().cloned().collect(),
        leases: Vec::new(),
        security_groups: None,
        log: Vec::new(),
    }
}

proptest! {
    /// Whoever has any version that is remembered, and applies what became different since, has what
    /// whoever asks for everything is told.
    #[test]
    fn a_base_and_its_delta_are_the_whole(
        steps in prop::collection::vec((0usize..4, 0usize..4, 1u16..4, 0u8..8), 1..60),
        asked in prop::sample::subsequence(APPS.to_vec(), 0..=4),
    ) {
        let asked = apps(&asked);
        let Subject::Apps(guids) = &asked else { unreachable!("it was made of apps") };
        let mut snapshot = empty(0);
        let mut truth: BTreeMap<TaggedPolicy, ()> = BTreeMap::new();
        let mut followers = vec![Follower::of(&snapshot, &asked)];
        let topic = Topic::Policies(asked.clone().into());
        for (revision, (source, destination, port, how)) in (1..).zip(steps) {
            let policy = tagged(source, destination, port);
            let step = if truth.remove(&policy).is_some() {
                removed(revision, policy)
            } else {
                truth.insert(policy.clone(), ());
                added(revision, policy)
            };
            snapshot = match how {
                0 => {
                    let mut version = snapshot.version().clone();
                    version.revision.0 += 1;
                    snapshot.rebuilt(state_of(version, &truth)).0
                }
                _ => snapshot.after(vec![step]).unwrap(),
            };
            let whole = Follower::of(&snapshot, &asked);
            for follower in &followers {
                let mut follower = follower.clone();
                let then = Some(follower.policies.len());
                let delta = snapshot.delta(guids, &follower.version, then).unwrap();
                prop_assert_eq!(delta.total, whole.policies.len());
                follower.apply(snapshot.delta(guids, &follower.version, None).unwrap());
                prop_assert_eq!(&follower.policies, &whole.policies);
                let then = follower.version.revision;
                let changed = Some(snapshot.changed_of(&asked)).filter(|changed| *changed > then);
                prop_assert_eq!(snapshot.changed_after(&topic, then), changed, "however it is found");
            }
            followers.push(whole);
        }
    }

    /// Made anew in the same life, a snapshot tells a new version to those who get something else, and
    /// to those who may have seen what was missed.
    #[test]
    fn rebuilding_concerns_those_who_get_something_else(
        before in prop::collection::btree_set((0usize..4, 0usize..4, 1u16..3), 0..10),
        after in prop::collection::btree_set((0usize..4, 0usize..4, 1u16..3), 0..10),
        asked in prop::sample::subsequence(APPS.to_vec(), 0..=4),
        passed in 1u64..4,
    ) {
        let truth = |policies: &BTreeSet<(usize, usize, u16)>| {
            policies.iter().map(|&(a, b, port)| (tagged(a, b, port), ())).collect()
        };
        let version = |revision| Version { life: Life::new("life").unwrap(), revision: Revision(revision) };
        let first = Snapshot::of(state_of(version(5), &truth(&before)), TagLength::DEFAULT);
        let (next, touched) = first.rebuilt(state_of(version(5 + passed), &truth(&after)));
        let fresh = Snapshot::of(state_of(version(5 + passed), &truth(&after)), TagLength::DEFAULT);
        let subject = apps(&asked);
        prop_assert_eq!(next.policies_of(&subject), fresh.policies_of(&subject));
        prop_assert_eq!(next.version(), fresh.version());
        let topic = Topic::Policies(subject.clone().into());
        let differs = next.policies_of(&subject) != first.policies_of(&subject);
        let outdated = next.standing(&version(5), &topic) == Standing::Outdated;
        prop_assert_eq!(outdated, differs);
        let Which::Some(touched) = touched.apps else { panic!("one can tell") };
        prop_assert_eq!(subject.touches(&touched), differs);
        for between in 6..5 + passed {
            prop_assert_eq!(next.standing(&version(between), &topic), Standing::Outdated);
        }
        prop_assert_eq!(next.standing(&version(5 + passed), &topic), Standing::Current);
        prop_assert_eq!(next.standing(&version(6 + passed), &topic), Standing::Ahead);
    }
}

#[test]
fn what_is_not_remembered_is_not_told_by_a_delta() {
    let asked: BTreeSet<AppGuid> = ["a".parse().unwrap()].into();
    let mut snapshot = empty(7);
    for revision in 8..8 + 70 {
        let policy = tagged(0, 1, u16::try_from(revision).unwrap());
        snapshot = snapshot.after(vec![added(revision, policy)]).unwrap();
    }
    let since = |life: &str, revision| {
        let version = Version { life: Life::new(life).unwrap(), revision: Revision(revision) };
        snapshot.delta(&asked, &version, None).map(|delta| delta.added.len())
    };
    assert_eq!(since("life", 77), Some(0));
    assert_eq!(since("life", 13), Some(64));
    assert_eq!(since("life", 12), None, "an app remembers 64 changes");
    assert_eq!(since("life", 78), None, "not yet");
    assert_eq!(since("life", 6), None, "from before the snapshot began");
    assert_eq!(since("other", 77), None);
}

#[test]
fn no_version_given_looks_older_than_the_one_that_is_there() {
    let snapshot = empty(7).after(vec![added(8, tagged(0, 1, 1))]).unwrap();
    let snapshot = snapshot.after(vec![added(9, tagged(2, 3, 1))]).unwrap();
    let topic = Topic::Policies(apps(&["a"]).into());
    let given = |life: &str, revision| {
        let known = Version { life: Life::new(life).unwrap(), revision: Revision(revision) };
        snapshot.version_for(&topic, Some(&known)).revision.0
    };
    assert_eq!((given("life", 7), given("life", 8), given("life", 9)), (8, 8, 9));
    assert_eq!(given("other", 9), 8);
    assert_eq!(snapshot.version_for(&topic, None).revision.0, 8);
}
