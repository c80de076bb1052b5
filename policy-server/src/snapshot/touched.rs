//! Whom a change concerns.

use std::collections::BTreeSet;

use policy::{AppGuid, Revision};
use policy_store::Change;

/// What became different from one snapshot to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    /// Apps with another list of policies.
    pub apps: Which<AppGuid>,
    /// Whether the list of leases is another one.
    pub leases: bool,
    /// Spaces with other security groups.
    pub spaces: Which<String>,
}

/// Some, or one cannot tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Which<T> {
    /// These, and no others.
    Some(BTreeSet<T>),
    /// All of them, for all one knows.
    All,
}

impl Touched {
    /// Everything, for all one knows.
    pub(crate) fn everything() -> Self {
        Self { apps: Which::All, leases: true, spaces: Which::All }
    }

    /// What a log says. Which spaces have other security groups it does not say.
    pub(crate) fn by(log: &[(Revision, Change)]) -> Self {
        let mut touched = Self::default();
        for (_, change) in log {
            match change {
                Change::PolicyAdded(tagged) | Change::PolicyRemoved(tagged) => {
                    let policy = &tagged.policy;
                    touched.apps.add([policy.source.clone(), policy.destination.clone()]);
                }
                Change::LeaseAdded(_) | Change::LeaseRemoved(_) => touched.leases = true,
                Change::SecurityGroupsReplaced | Change::TagGiven(_) => {}
            }
        }
        touched
    }
}

impl<T: Ord> Which<T> {
    pub(super) fn add(&mut self, more: impl IntoIterator<Item = T>) {
        if let Self::Some(some) = self {
            some.extend(more);
        }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Some(some) if some.is_empty())
    }
}

impl<T> Default for Which<T> {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}
