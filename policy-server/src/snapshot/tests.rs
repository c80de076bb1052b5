use std::collections::BTreeMap;

use policy::{Life, Policy, Protocol, Tag};
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
        security_groups: Vec::new(),
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
    assert_eq!(snapshot.leases_version().revision.0, 2);
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
                security_groups: Vec::new(),
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
