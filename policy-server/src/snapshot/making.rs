//! How a snapshot comes to be: from the whole state, from the one before and the log, or from the one
//! before and the whole state, where the log does not tell how one became the other.

use std::{collections::HashMap, sync::Arc};

use imbl::OrdSet;
use policy::{Revision, TagLength, TaggedPolicy, wire::line::KeptLine};
use policy_store::{Change, NumberedGroup, State};
use thiserror::Error;

use super::{
    Entry, Snapshot, Touched, Which,
    app::{Event, What},
    groups::Groups,
    latest::Latest,
};

/// For so many revisions it is remembered that the last policy of an app has gone, once there are many
/// such apps.
const MEMORY: u64 = 16_384;

/// So many leaps are remembered. Each is a change somebody made who takes no revisions, while others
/// took some.
const LEAPS: usize = 64;

/// The log does not fit what it is applied to. The snapshot must be made anew.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("revision {revision} does not follow from revision {held}: {what}")]
pub(crate) struct Inconsistent {
    revision: Revision,
    held: Revision,
    what: &'static str,
}

/// From one revision to a later one, without knowledge of what was in between.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leap {
    from: Revision,
    to: Revision,
}

impl Snapshot {
    /// A snapshot that begins with `state`; tags are written with `tag_length`.
    pub(crate) fn of(state: State, tag_length: TagLength) -> Self {
        let State { version, policies, leases, security_groups, log, compacted: base } = state;
        let mut snapshot = Self {
            version,
            base,
            leaps: Vec::new(),
            tag_length,
            policies: OrdSet::new(),
            policies_changed: base,
            latest: Latest::after(base),
            apps: imbl::HashMap::new(),
            leases: leases.into_iter().map(|lease| (lease.underlay_ip, lease)).collect(),
            leases_changed: base,
            groups: Groups::of(security_groups, base),
        };
        let added: HashMap<_, _> = log
            .iter()
            .filter_map(|(revision, change)| match change {
                Change::PolicyAdded(tagged) => Some((tagged, *revision)),
                _ => None,
            })
            .collect();
        for tagged in policies {
            let since = added.get(&tagged).copied().unwrap_or(base);
            snapshot.place(tagged, since);
        }
        drop(added);
        snapshot.recall(log);
        snapshot
    }

    /// Notes what the log still tells of how everything came to be as it is. So a server that starts
    /// goes on where another ended, and no cell hears what it knows already.
    fn recall(&mut self, log: Vec<(Revision, Change)>) {
        for (revision, change) in log {
            match change {
                Change::PolicyAdded(tagged) => self.recall_policy(tagged, revision, What::Added),
                Change::PolicyRemoved(tagged) => {
                    self.recall_policy(tagged, revision, What::Removed);
                }
                Change::LeaseAdded(_) | Change::LeaseRemoved(_) => self.leases_changed = revision,
                Change::SecurityGroupsReplaced => self.groups.recall(revision),
                Change::TagGiven(_) => {}
            }
        }
    }

    fn recall_policy(&mut self, tagged: TaggedPolicy, revision: Revision, what: What) {
        let probe = Arc::new(Entry::probe(tagged));
        let entry = self.policies.get(&probe).cloned().unwrap_or_else(|| {
            let tagged = probe.tagged.clone();
            Arc::new(Entry::new(tagged, revision, self.tag_length))
        });
        for app in entry.apps() {
            let event = Event { revision, entry: entry.clone(), what };
            self.apps.entry(app.clone()).or_default().recall(event);
        }
        self.latest.note(revision, entry.apps());
        self.policies_changed = revision;
    }

    /// The snapshot after what `log` says. Which security groups there are it does not say: see
    /// [`with_security_groups`](Self::with_security_groups).
    pub(crate) fn after(&self, log: Vec<(Revision, Change)>) -> Result<Self, Inconsistent> {
        let mut next = self.clone();
        for (revision, change) in log {
            let held = next.version.revision;
            let must = |holds: bool, what| {
                if holds { Ok(()) } else { Err(Inconsistent { revision, held, what }) }
            };
            let follows =
                revision.0 == held.0 + 1 || (revision == held && held > self.version.revision);
            must(follows, "a revision is missing")?;
            match change {
                Change::PolicyAdded(policy) => {
                    must(next.add(policy, revision), "a policy that exists was added")?;
                }
                Change::PolicyRemoved(policy) => {
                    must(next.remove(policy, revision), "a policy that is missing was removed")?;
                }
                Change::LeaseAdded(lease) => {
                    let before = next.leases.insert(lease.underlay_ip, lease);
                    must(before.is_none(), "a cell got a second lease")?;
                    next.leases_changed = revision;
                }
                Change::LeaseRemoved(lease) => {
                    let before = next.leases.remove(&lease.underlay_ip);
                    must(before == Some(lease), "a lease that is missing was removed")?;
                    next.leases_changed = revision;
                }
                Change::SecurityGroupsReplaced => next.groups.announce(revision),
                // Tags are in the policies; of others nobody is told.
                Change::TagGiven(_) => {}
            }
            next.version.revision = revision;
        }
        Ok(next)
    }

    /// The snapshot that holds `state`, later in the same life, and whom the difference concerns. Only
    /// who is concerned gets a new version; what both hold is shared.
    pub(crate) fn rebuilt(&self, state: State) -> (Self, Touched) {
        let State { version, policies, leases, security_groups, log: _, compacted: _ } = state;
        let (from, to) = (self.version.revision, version.revision);
        let mut next = Self { version, ..self.clone() };
        let mut touched = Touched::default();
        let (gone, come) = difference(&self.policies, policies);
        for tagged in gone {
            touched.apps.add([tagged.policy.source.clone(), tagged.policy.destination.clone()]);
            next.remove(tagged, to);
        }
        for tagged in come {
            touched.apps.add([tagged.policy.source.clone(), tagged.policy.destination.clone()]);
            next.add(tagged, to);
        }
        next.leases = leases.into_iter().map(|lease| (lease.underlay_ip, lease)).collect();
        if next.leases != self.leases {
            next.leases_changed = to;
            touched.leases = true;
        }
        if security_groups.as_deref() != self.groups.list() {
            next.groups.announce(to);
            touched.spaces = next.groups.replace(security_groups);
        }
        next.leap(Leap { from, to });
        (next, touched)
    }

    /// This snapshot with the security groups of its version, after the log said that they are others
    /// now, and the spaces that concerns.
    pub(crate) fn with_security_groups(
        mut self,
        groups: Option<Vec<NumberedGroup>>,
    ) -> (Self, Which<String>) {
        let concerned = self.groups.replace(groups);
        (self, concerned)
    }

    /// This snapshot without the oldest apps that have no policy any more, if most have none: each
    /// policy names at most two. Whoever has a version as old as what is forgotten takes the whole.
    pub(crate) fn forgetting(mut self) -> Self {
        let many = |snapshot: &Self| snapshot.apps.len() > 4 * snapshot.policies.len() + 65_536;
        let now = self.version.revision;
        for kept in [MEMORY, 0] {
            if many(&self) {
                let base = self.base.max(Revision(now.0.saturating_sub(kept)));
                self.apps.retain(|_, app| !app.policies.is_empty() || app.changed > base);
                self.base = base;
            }
        }
        self
    }

    fn leap(&mut self, leap: Leap) {
        self.leaps.retain(|leap| leap.to > self.base);
        if leap.to.0 > leap.from.0 + 1 {
            self.leaps.push(leap);
        }
        if self.leaps.len() > LEAPS {
            self.base = self.leaps.remove(0).to;
        }
    }

    /// Puts a policy where it belongs, as one that is there since the beginning.
    fn place(&mut self, tagged: TaggedPolicy, since: Revision) {
        let entry = Arc::new(Entry::new(tagged, since, self.tag_length));
        for app in entry.apps() {
            self.apps.entry(app.clone()).or_default().place(entry.clone());
        }
        self.policies.insert(entry);
    }

    /// Whether the policy was new.
    fn add(&mut self, tagged: TaggedPolicy, revision: Revision) -> bool {
        let entry = Arc::new(Entry::new(tagged, revision, self.tag_length));
        for app in entry.apps() {
            self.apps.entry(app.clone()).or_default().add(entry.clone(), revision);
        }
        self.latest.note(revision, entry.apps());
        self.policies_changed = revision;
        self.policies.insert(entry).is_none()
    }

    /// Whether the policy was there.
    fn remove(&mut self, tagged: TaggedPolicy, revision: Revision) -> bool {
        let Some(entry) = self.policies.remove(&Arc::new(Entry::probe(tagged))) else {
            return false;
        };
        for app in entry.apps() {
            self.apps.entry(app.clone()).or_default().remove(entry.clone(), revision);
        }
        self.latest.note(revision, entry.apps());
        self.policies_changed = revision;
        true
    }
}

impl Leap {
    /// Whether `revision` is one that was passed over.
    pub(super) fn passes(self, revision: Revision) -> bool {
        self.from < revision && revision < self.to
    }
}

impl Entry {
    pub(crate) fn new(tagged: TaggedPolicy, since: Revision, length: TagLength) -> Self {
        let line = KeptLine::new(&tagged, length);
        Self { tagged, line, since }
    }

    /// Something to find the entry of a policy with.
    fn probe(tagged: TaggedPolicy) -> Self {
        Self { tagged, line: KeptLine::default(), since: Revision::default() }
    }
}

/// The policies only `before` has, and those only `after` has.
fn difference(
    before: &OrdSet<Arc<Entry>>,
    mut after: Vec<TaggedPolicy>,
) -> (Vec<TaggedPolicy>, Vec<TaggedPolicy>) {
    after.sort_unstable();
    let mut before = before.iter().map(|entry| &entry.tagged).peekable();
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    for tagged in after {
        while let Some(smaller) = before.next_if(|held| **held < tagged) {
            gone.push(smaller.clone());
        }
        if before.next_if(|held| **held == tagged).is_none() {
            come.push(tagged);
        }
    }
    gone.extend(before.cloned());
    (gone, come)
}
