//! The last few changes, in the order they happened. Polls ask again a moment after they were answered, so
//! what they do not know is most often among these; else each of their apps is looked up.

use std::collections::{BTreeSet, VecDeque};

use policy::{AppGuid, Revision};

/// To go through more than so many costs as much as to look up the apps of a cell.
const KEPT: usize = 32;

#[derive(Debug, Clone)]
pub(super) struct Latest {
    /// Everything after this revision is in `changes`, oldest first.
    since: Revision,
    changes: VecDeque<Change>,
}

/// Something happened to a policy.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub revision: Revision,
    /// The apps at its ends.
    ends: [AppGuid; 2],
}

impl Latest {
    /// Nothing has happened after `revision`.
    pub(super) fn after(revision: Revision) -> Self {
        Self { since: revision, changes: VecDeque::with_capacity(KEPT) }
    }

    /// Notes what happened now.
    pub(super) fn note(&mut self, revision: Revision, ends: [&AppGuid; 2]) {
        if self.changes.len() == KEPT
            && let Some(oldest) = self.changes.pop_front()
        {
            self.since = oldest.revision;
        }
        self.changes.push_back(Change { revision, ends: ends.map(AppGuid::clone) });
    }

    /// Everything that happened after `revision`, newest first; `None` if some of it is forgotten.
    pub(super) fn changes_after(
        &self,
        revision: Revision,
    ) -> Option<impl Iterator<Item = &Change>> {
        let later = move |change: &&Change| change.revision > revision;
        (revision >= self.since).then(|| self.changes.iter().rev().take_while(later))
    }
}

impl Change {
    /// Those of `apps` that are at its ends.
    pub(super) fn apps_among(&self, apps: &BTreeSet<AppGuid>) -> impl Iterator<Item = &AppGuid> {
        self.ends.iter().filter(|app| apps.contains(*app))
    }

    pub(super) fn concerns(&self, apps: &BTreeSet<AppGuid>) -> bool {
        self.apps_among(apps).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_is_not_said_to_be_nothing() {
        let [web, db]: [AppGuid; 2] = ["web", "db"].map(|name| name.parse().unwrap());
        let mut latest = Latest::after(Revision(1));
        let count = |latest: &Latest, revision| {
            latest.changes_after(Revision(revision)).map(Iterator::count)
        };
        assert_eq!((count(&latest, 0), count(&latest, 1)), (None, Some(0)));
        latest.note(Revision(2), [&web, &db]);
        latest.note(Revision(3), [&web, &db]);
        assert_eq!(
            (count(&latest, 1), count(&latest, 2), count(&latest, 3)),
            (Some(2), Some(1), Some(0))
        );
        // Of a change too large to be kept, nothing is told by halves.
        for _ in 0..=KEPT {
            latest.note(Revision(4), [&web, &db]);
        }
        assert_eq!((count(&latest, 3), count(&latest, 4)), (None, Some(0)));
    }
}
