use std::collections::BTreeSet;

use policy::{AppGuid, Policy};

/// Which policies a caller asked for (spec/policy-server.md §2.7). An empty set selects nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// All.
    All,
    /// Those with an end among these apps: `id=a,b`.
    Touching(BTreeSet<AppGuid>),
    /// Those with their source and their destination among these, where a set is given:
    /// `source_id=a,b`, `dest_id=c`.
    Between {
        /// Possible sources; `None` means any.
        sources: Option<BTreeSet<AppGuid>>,
        /// Possible destinations; `None` means any.
        destinations: Option<BTreeSet<AppGuid>>,
    },
}

impl Filter {
    /// Whether `policy` is selected.
    pub fn selects(&self, policy: &Policy) -> bool {
        let among =
            |set: &Option<BTreeSet<_>>, app| set.as_ref().is_none_or(|set| set.contains(app));
        match self {
            Self::All => true,
            Self::Touching(apps) => {
                apps.contains(&policy.source) || apps.contains(&policy.destination)
            }
            Self::Between { sources, destinations } => {
                among(sources, &policy.source) && among(destinations, &policy.destination)
            }
        }
    }
}
