//! What became of the policies of some apps since a revision (design §2.3).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use policy::{AppGuid, Version};

use super::{
    Entry, Snapshot,
    app::{App, Event, What},
};

/// Exactly what is different: who has the list of then, takes out `removed`, all of which it has, and
/// puts in `added`, none of which it has, then has the list of now.
#[derive(Debug)]
pub(crate) struct Delta {
    /// How many policies the list of now has.
    pub total: usize,
    pub removed: Vec<Arc<Entry>>,
    pub added: Vec<Arc<Entry>>,
}

/// Whether a policy was on the list then, and whether it is now.
struct Fate {
    was: bool,
    is: bool,
}

impl Snapshot {
    /// What became of the policies of `apps` since `then`; `None` if that is not known any more. Costs
    /// what that is, if the caller knows how many there were `then`, and else a look at each.
    pub(crate) fn delta(
        &self,
        apps: &BTreeSet<AppGuid>,
        then: &Version,
        total_then: Option<usize>,
    ) -> Option<Delta> {
        if then.life != self.version.life || !self.remembers(then.revision) {
            return None;
        }
        let mut fates = BTreeMap::new();
        for (guid, app) in self.changed_apps(apps, then.revision) {
            let events = app.events_after(then.revision)?;
            for Event { entry, what, revision: _ } in
                events.filter(|event| event.entry.is_told_by(guid, apps))
            {
                let is = *what == What::Added;
                // The first event tells what was before it.
                fates.entry(entry).or_insert(Fate { was: !is, is }).is = is;
            }
        }
        let such = |was, is| {
            let fates = fates.iter().filter(move |(_, fate)| (fate.was, fate.is) == (was, is));
            fates.map(|(entry, _)| Arc::clone(entry)).collect::<Vec<_>>()
        };
        let (removed, added) = (such(true, false), such(false, true));
        let total = total_then.and_then(|total| (total + added.len()).checked_sub(removed.len()));
        Some(Delta { total: total.unwrap_or_else(|| self.count(apps)), removed, added })
    }

    /// How many policies `apps` have.
    fn count(&self, apps: &BTreeSet<AppGuid>) -> usize {
        let told = |(guid, app): (&AppGuid, &App)| {
            app.policies.iter().filter(|entry| entry.is_told_by(guid, apps)).count()
        };
        self.known(apps).map(told).sum()
    }
}
