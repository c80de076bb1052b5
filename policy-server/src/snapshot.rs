//! What the database holds, in memory, as of one revision (design §2.2). Immutable: a change makes
//! another snapshot, which shares almost everything with the one before.

pub(crate) mod feed;
mod lines;

use std::{
    cmp::Ordering,
    collections::BTreeSet,
    net::Ipv4Addr,
    sync::{Arc, OnceLock},
};

use imbl::{HashMap, OrdMap, OrdSet};
use policy::{AppGuid, Lease, Revision, TagLength, TaggedPolicy, Version, wire::line::KeptLine};
use policy_store::{Change, Filter, NumberedGroup, State};
use thiserror::Error;

use lines::Lines;

/// Which policies somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// All of them.
    Everything,
    /// Those with one of these apps at either end.
    Apps(BTreeSet<AppGuid>),
}

/// A policy, and how cells are told of it: they ask far more often than policies change.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub tagged: TaggedPolicy,
    /// The policy in the forms of version 1.
    pub line: KeptLine,
}

/// Everything cells ask for, as of `version`.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    version: Version,
    /// The revision of the state this began with. What changed when before that is not known, so
    /// nothing is said to be older.
    base: Revision,
    tag_length: TagLength,
    policies: OrdSet<Arc<Entry>>,
    policies_changed: Revision,
    /// Also apps whose last policy has gone: that it went is a change they must hear of.
    apps: HashMap<AppGuid, App>,
    leases: OrdMap<Ipv4Addr, Lease>,
    leases_changed: Revision,
    security_groups: Arc<[NumberedGroup]>,
    security_groups_changed: Revision,
}

#[derive(Debug, Clone, Default)]
struct App {
    policies: OrdSet<Arc<Entry>>,
    changed: Revision,
    /// Put together when somebody first asks; `None` inside where there are too many.
    lines: OnceLock<Option<Arc<Lines>>>,
}

/// The log does not fit what it is applied to. The snapshot must be made anew.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("revision {revision} does not follow from revision {held}: {what}")]
pub(crate) struct Inconsistent {
    revision: Revision,
    held: Revision,
    what: &'static str,
}

impl Snapshot {
    /// A snapshot that begins with `state`; tags are written with `tag_length`.
    pub(crate) fn of(state: State, tag_length: TagLength) -> Self {
        let State { version, policies, leases, security_groups, log: _, compacted: _ } = state;
        let base = version.revision;
        let mut snapshot = Self {
            version,
            base,
            tag_length,
            policies: OrdSet::new(),
            policies_changed: base,
            apps: HashMap::new(),
            leases: leases.into_iter().map(|lease| (lease.underlay_ip, lease)).collect(),
            leases_changed: base,
            security_groups: security_groups.into(),
            security_groups_changed: base,
        };
        for policy in policies {
            snapshot.add(policy, base);
        }
        snapshot
    }

    /// The snapshot after what `log` says.
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
                    must(next.remove(&policy, revision), "a policy that is missing was removed")?;
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
                Change::SecurityGroupsReplaced => next.security_groups_changed = revision,
                // Tags are in the policies; of others nobody is told.
                Change::TagGiven(_) => {}
            }
            next.version.revision = revision;
        }
        Ok(next)
    }

    /// The life of the database and the newest revision held.
    pub(crate) fn version(&self) -> &Version {
        &self.version
    }

    /// The version of what `subject` asks for: the last change that touched it.
    pub(crate) fn version_of(&self, subject: &Subject) -> Version {
        let changed = match subject {
            Subject::Everything => self.policies_changed,
            Subject::Apps(apps) => {
                let changes = apps.iter().filter_map(|app| Some(self.apps.get(app)?.changed));
                changes.max().unwrap_or(self.base)
            }
        };
        self.at(changed.max(self.base))
    }

    /// The policies `subject` asks for.
    pub(crate) fn policies_of(&self, subject: &Subject) -> Vec<Arc<Entry>> {
        match subject {
            Subject::Everything => self.policies.iter().cloned().collect(),
            Subject::Apps(apps) => self.touching(apps),
        }
    }

    /// How many policies there are.
    pub(crate) fn policy_count(&self) -> usize {
        self.policies.len()
    }

    /// The policies `filter` selects.
    pub(crate) fn select(&self, filter: &Filter) -> Vec<Arc<Entry>> {
        let selected = |entry: &Arc<Entry>| filter.selects(&entry.tagged.policy);
        let mut found = match filter {
            Filter::All => return self.policies.iter().cloned().collect(),
            Filter::Touching(apps) => return self.touching(apps),
            Filter::Between { sources: Some(apps), .. }
            | Filter::Between { sources: None, destinations: Some(apps) } => self.touching(apps),
            Filter::Between { sources: None, destinations: None } => {
                return self.policies.iter().cloned().collect();
            }
        };
        found.retain(selected);
        found
    }

    /// The policies with an end among `apps`, each once: those between two of them are the source's.
    /// Ordered by app, and then by policy.
    fn touching(&self, apps: &BTreeSet<AppGuid>) -> Vec<Arc<Entry>> {
        let mut found = Vec::new();
        for (guid, app) in apps.iter().filter_map(|guid| Some((guid, self.apps.get(guid)?))) {
            let its = |entry: &&Arc<Entry>| {
                let source = &entry.tagged.policy.source;
                source == guid || !apps.contains(source)
            };
            found.extend(app.policies.iter().filter(its).cloned());
        }
        found
    }

    /// How many policies `apps` have, and their lines with tags, in the form of version 1, separated by
    /// commas; `None` if they are too many to be put together.
    pub(crate) fn lines_of(&self, apps: &BTreeSet<AppGuid>) -> Option<(usize, String)> {
        let known = apps.iter().filter_map(|guid| Some((guid, self.apps.get(guid)?)));
        let lines: Option<Vec<_>> = known.map(|(guid, app)| app.lines(guid)).collect();
        lines.map(|lines| lines::join(&lines))
    }

    /// How many apps `subject` asks about.
    pub(crate) fn apps_of(&self, subject: &Subject) -> usize {
        match subject {
            Subject::Everything => {
                self.apps.values().filter(|app| !app.policies.is_empty()).count()
            }
            Subject::Apps(apps) => apps.len(),
        }
    }

    /// The version of the list of leases.
    pub(crate) fn leases_version(&self) -> Version {
        self.at(self.leases_changed)
    }

    /// The leases, ordered by the cells' addresses.
    pub(crate) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// The version of the list of security groups.
    pub(crate) fn security_groups_version(&self) -> Version {
        self.at(self.security_groups_changed)
    }

    /// The security groups, ordered by number.
    pub(crate) fn security_groups(&self) -> &Arc<[NumberedGroup]> {
        &self.security_groups
    }

    /// This snapshot with the security groups the store has by now. They may be newer than the
    /// snapshot; the change that made them so then comes with a later one, and nothing is missed.
    pub(crate) fn with_security_groups(self, groups: Vec<NumberedGroup>) -> Self {
        Self { security_groups: groups.into(), ..self }
    }

    /// Whether most of the apps remembered have no policy any more. Each policy names at most two.
    pub(crate) fn is_mostly_memories(&self) -> bool {
        self.apps.len() > 4 * self.policies.len() + 65_536
    }

    fn at(&self, revision: Revision) -> Version {
        Version { life: self.version.life.clone(), revision }
    }

    /// Whether the policy was new.
    fn add(&mut self, tagged: TaggedPolicy, revision: Revision) -> bool {
        let line = KeptLine::new(&tagged, self.tag_length);
        let entry = Arc::new(Entry { tagged, line });
        for app in [&entry.tagged.policy.source, &entry.tagged.policy.destination] {
            let app = self.apps.entry(app.clone()).or_default();
            app.policies.insert(entry.clone());
            app.change(revision);
        }
        self.policies_changed = revision;
        self.policies.insert(entry).is_none()
    }

    /// Whether the policy was there.
    fn remove(&mut self, tagged: &TaggedPolicy, revision: Revision) -> bool {
        let entry = Arc::new(Entry { tagged: tagged.clone(), line: KeptLine::default() });
        for app in [&tagged.policy.source, &tagged.policy.destination] {
            let app = self.apps.entry(app.clone()).or_default();
            app.policies.remove(&entry);
            app.change(revision);
        }
        self.policies_changed = revision;
        self.policies.remove(&entry).is_some()
    }
}

impl App {
    /// Its policies have changed.
    fn change(&mut self, revision: Revision) {
        self.changed = revision;
        self.lines.take();
    }

    fn lines(&self, guid: &AppGuid) -> Option<Arc<Lines>> {
        self.lines.get_or_init(|| Lines::of(guid, &self.policies).map(Arc::new)).clone()
    }
}

/// Entries are told apart by their policies alone; the line follows from these.
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.tagged.cmp(&other.tagged)
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.tagged == other.tagged
    }
}

impl Eq for Entry {}

impl Subject {
    /// Whether any of `apps` is asked about.
    pub(crate) fn touches(&self, apps: &BTreeSet<AppGuid>) -> bool {
        match self {
            Self::Everything => true,
            Self::Apps(asked) => !asked.is_disjoint(apps),
        }
    }
}

#[cfg(test)]
mod tests;
