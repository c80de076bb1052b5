//! What the database holds, in memory, as of one revision (design §2.2). Immutable: a change makes
//! another snapshot, which shares almost everything with the one before.

mod app;
mod delta;
pub(crate) mod feed;
mod groups;
mod latest;
mod lines;
mod making;
mod touched;

use std::{cmp::Ordering, collections::BTreeSet, net::Ipv4Addr, sync::Arc};

use imbl::{HashMap, OrdMap, OrdSet};
use policy::{AppGuid, Lease, Revision, TagLength, TaggedPolicy, Version, wire::line::KeptLine};
use policy_store::{Filter, NumberedGroup};

use app::App;
use groups::Groups;
use latest::Latest;
use making::Leap;
pub(crate) use {
    delta::Delta,
    touched::{Touched, Which},
};

/// Which policies somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// All of them.
    Everything,
    /// Those with one of these apps at either end.
    Apps(BTreeSet<AppGuid>),
}

/// What a poll may be about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Topic {
    Policies(Arc<Subject>),
    Leases,
    /// The security groups of these spaces, and those of all.
    SecurityGroups(Arc<BTreeSet<String>>),
}

/// How a version that somebody has stands to what a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing of what was asked for has changed since.
    Current,
    /// Something has, or may have.
    Outdated,
    /// It is of the same life and later than anything the snapshot holds.
    Ahead,
}

/// A policy, and how cells are told of it: they ask far more often than policies change.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub tagged: TaggedPolicy,
    /// The policy in the forms of version 1.
    pub line: KeptLine,
    /// The revision that added it, or, if that is forgotten, one by which it was there.
    pub since: Revision,
}

/// Everything cells ask for, as of `version`.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    version: Version,
    /// What changed up to here is not known, so nothing is said to be older.
    base: Revision,
    /// What happened in between is not known, either.
    leaps: Vec<Leap>,
    tag_length: TagLength,
    policies: OrdSet<Arc<Entry>>,
    policies_changed: Revision,
    latest: Latest,
    /// Also apps whose last policy has gone: that it went is a change they must hear of.
    apps: HashMap<AppGuid, App>,
    leases: OrdMap<Ipv4Addr, Lease>,
    leases_changed: Revision,
    groups: Groups,
}

impl Snapshot {
    /// The life of the database and the newest revision held.
    pub(crate) fn version(&self) -> &Version {
        &self.version
    }

    /// The version of what `subject` asks for: the last change that touched it.
    pub(crate) fn version_of(&self, subject: &Subject) -> Version {
        self.at(self.changed_of(subject).max(self.base))
    }

    /// How `known` stands to what is held about `topic`.
    pub(crate) fn standing(&self, known: &Version, topic: &Topic) -> Standing {
        if known.life != self.version.life {
            Standing::Outdated
        } else if known.revision > self.version.revision {
            Standing::Ahead
        } else if !self.remembers(known.revision) {
            Standing::Outdated
        } else if self.changed_after(topic, known.revision).is_none() {
            Standing::Current
        } else {
            Standing::Outdated
        }
    }

    /// The version by which somebody who has `known` is given what `topic` is about: that of its last
    /// change, and never one that looks older than what they have.
    pub(crate) fn version_for(&self, topic: &Topic, known: Option<&Version>) -> Version {
        let since = |known: &Version| self.changed_after(topic, known.revision);
        let remembered =
            |known: &&Version| known.life == self.version.life && self.remembers(known.revision);
        if let Some(changed) = known.filter(remembered).and_then(since) {
            return self.at(changed);
        }
        let changed = self.at(self.changed(topic).max(self.base));
        match known {
            Some(known) if known.life == changed.life && known.revision > changed.revision => {
                self.version.clone()
            }
            _ => changed,
        }
    }

    /// When what `topic` is about changed last, if it did after `then`, which is remembered.
    fn changed_after(&self, topic: &Topic, then: Revision) -> Option<Revision> {
        if let Topic::Policies(subject) = topic
            && let Subject::Apps(apps) = &**subject
            && let Some(mut changes) = self.latest.changes_after(then)
        {
            return changes.find(|change| change.concerns(apps)).map(|change| change.revision);
        }
        Some(self.changed(topic)).filter(|changed| *changed > then)
    }

    fn changed(&self, topic: &Topic) -> Revision {
        match topic {
            Topic::Policies(subject) => self.changed_of(subject),
            Topic::Leases => self.leases_changed,
            Topic::SecurityGroups(spaces) => self.groups.changed_for(spaces),
        }
    }

    fn changed_of(&self, subject: &Subject) -> Revision {
        match subject {
            Subject::Everything => self.policies_changed,
            Subject::Apps(apps) => {
                self.known(apps).map(|(_, app)| app.changed).max().unwrap_or_default()
            }
        }
    }

    /// `subject`, its names sharing the memory of those held here: thousands of polls ask about the
    /// same apps for minutes.
    pub(crate) fn sharing(&self, subject: Subject) -> Subject {
        let shared = |guid: AppGuid| {
            self.apps.get_key_value(&guid).map_or(guid.clone(), |(held, _)| held.clone())
        };
        match subject {
            Subject::Everything => Subject::Everything,
            Subject::Apps(apps) => Subject::Apps(apps.into_iter().map(shared).collect()),
        }
    }

    /// Whether everything is known that happened since `revision`.
    fn remembers(&self, revision: Revision) -> bool {
        (self.base..=self.version.revision).contains(&revision)
            && !self.leaps.iter().any(|leap| leap.passes(revision))
    }

    /// Those of `apps` that have policies, or had some.
    fn known<'a>(
        &'a self,
        apps: &'a BTreeSet<AppGuid>,
    ) -> impl Iterator<Item = (&'a AppGuid, &'a App)> {
        apps.iter().filter_map(|guid| Some((guid, self.apps.get(guid)?)))
    }

    /// Those of `apps` whose policies changed after `then`, which is remembered.
    fn changed_apps<'a>(
        &'a self,
        apps: &'a BTreeSet<AppGuid>,
        then: Revision,
    ) -> Vec<(&'a AppGuid, &'a App)> {
        let changed = |(_, app): &(&AppGuid, &App)| app.changed > then;
        let Some(changes) = self.latest.changes_after(then) else {
            return self.known(apps).filter(changed).collect();
        };
        let concerned: BTreeSet<_> = changes.flat_map(|change| change.apps_among(apps)).collect();
        concerned.into_iter().filter_map(|guid| Some((guid, self.apps.get(guid)?))).collect()
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
        for (guid, app) in self.known(apps) {
            found.extend(app.policies.iter().filter(|entry| entry.is_told_by(guid, apps)).cloned());
        }
        found
    }

    /// How many policies `apps` have, and their lines with tags, in the form of version 1, separated by
    /// commas; `None` if they are too many to be put together.
    pub(crate) fn lines_of(&self, apps: &BTreeSet<AppGuid>) -> Option<(usize, String)> {
        let lines: Option<Vec<_>> = self.known(apps).map(|(guid, app)| app.lines(guid)).collect();
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

    /// The leases, ordered by the cells' addresses.
    pub(crate) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// The version of the security groups: the last change of any of them.
    pub(crate) fn security_groups_version(&self) -> Version {
        self.at(self.groups.changed())
    }

    /// The security groups, ordered by number; `None` while nobody has read them from Cloud Controller.
    pub(crate) fn security_groups(&self) -> Option<&[NumberedGroup]> {
        self.groups.list()
    }

    fn at(&self, revision: Revision) -> Version {
        Version { life: self.version.life.clone(), revision }
    }
}

impl Entry {
    /// The apps at both ends.
    fn apps(&self) -> [&AppGuid; 2] {
        [&self.tagged.policy.source, &self.tagged.policy.destination]
    }

    /// Whether, of all `apps` that are asked about, it is `app`, one of its ends, that tells of this
    /// policy: between two of them it is the source.
    fn is_told_by(&self, app: &AppGuid, apps: &BTreeSet<AppGuid>) -> bool {
        let source = &self.tagged.policy.source;
        source == app || !apps.contains(source)
    }
}

/// Entries are told apart by their policies alone.
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
