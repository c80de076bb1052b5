//! What the database holds, in memory, as of one revision (design §2.2). Immutable: a change makes
//! another snapshot, which shares almost everything with the one before.

pub(crate) mod feed;

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc};

use imbl::{HashMap, OrdMap, OrdSet};
use policy::{AppGuid, Lease, Revision, TaggedPolicy, Version};
use policy_store::{Change, NumberedGroup, State};
use thiserror::Error;

/// Which policies somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// All of them.
    Everything,
    /// Those with one of these apps at either end.
    Apps(BTreeSet<AppGuid>),
}

/// Everything cells ask for, as of `version`.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    version: Version,
    /// The revision of the state this began with. What changed when before that is not known, so
    /// nothing is said to be older.
    base: Revision,
    policies: OrdSet<TaggedPolicy>,
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
    policies: OrdSet<TaggedPolicy>,
    changed: Revision,
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
    /// A snapshot that begins with `state`.
    pub(crate) fn of(state: State) -> Self {
        let State { version, policies, leases, security_groups } = state;
        let base = version.revision;
        let mut snapshot = Self {
            version,
            base,
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

    /// The policies `subject` asks for, in order.
    pub(crate) fn policies_of(&self, subject: &Subject) -> Vec<TaggedPolicy> {
        match subject {
            Subject::Everything => self.policies.iter().cloned().collect(),
            Subject::Apps(apps) => {
                let policies = apps.iter().filter_map(|app| self.apps.get(app));
                let distinct: BTreeSet<_> = policies.flat_map(|app| &app.policies).collect();
                distinct.into_iter().cloned().collect()
            }
        }
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
    fn add(&mut self, policy: TaggedPolicy, revision: Revision) -> bool {
        for app in [&policy.policy.source, &policy.policy.destination] {
            let app = self.apps.entry(app.clone()).or_default();
            app.policies.insert(policy.clone());
            app.changed = revision;
        }
        self.policies_changed = revision;
        self.policies.insert(policy).is_none()
    }

    /// Whether the policy was there.
    fn remove(&mut self, policy: &TaggedPolicy, revision: Revision) -> bool {
        for app in [&policy.policy.source, &policy.policy.destination] {
            let app = self.apps.entry(app.clone()).or_default();
            app.policies.remove(policy);
            app.changed = revision;
        }
        self.policies_changed = revision;
        self.policies.remove(policy).is_some()
    }
}

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
