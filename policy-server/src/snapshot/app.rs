//! What a snapshot holds of one app.

use std::sync::{Arc, OnceLock};

use imbl::{OrdSet, Vector};
use policy::{AppGuid, Revision};

use super::{Entry, lines::Lines};

/// So many changes of an app's policies are remembered. Whoever has slept over more takes the whole,
/// which then is hardly longer.
const REMEMBERED: usize = 64;

#[derive(Debug, Clone, Default)]
pub(super) struct App {
    pub policies: OrdSet<Arc<Entry>>,
    pub changed: Revision,
    recent: Recent,
    /// Put together when somebody first asks; `None` inside where there are too many.
    lines: OnceLock<Option<Arc<Lines>>>,
}

/// What happened to the policies of an app lately.
#[derive(Debug, Clone, Default)]
struct Recent {
    /// Everything after this revision is in `events`, oldest first.
    since: Revision,
    events: Vector<Event>,
}

/// Something that happened to one policy.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub revision: Revision,
    pub entry: Arc<Entry>,
    pub what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Added,
    Removed,
}

impl App {
    /// Puts `entry` where it belongs, as something that was always there.
    pub(super) fn place(&mut self, entry: Arc<Entry>) {
        self.policies.insert(entry);
    }

    pub(super) fn add(&mut self, entry: Arc<Entry>, revision: Revision) {
        self.policies.insert(entry.clone());
        self.recall(Event { revision, entry, what: What::Added });
    }

    pub(super) fn remove(&mut self, entry: Arc<Entry>, revision: Revision) {
        self.policies.remove(&entry);
        self.recall(Event { revision, entry, what: What::Removed });
    }

    /// Notes what happened, of which the policies tell already.
    pub(super) fn recall(&mut self, event: Event) {
        self.changed = event.revision;
        self.lines.take();
        let Recent { since, events } = &mut self.recent;
        events.push_back(event);
        if events.len() > REMEMBERED
            && let Some(oldest) = events.pop_front()
        {
            *since = oldest.revision;
        }
    }

    /// What happened after `revision`, oldest first; `None` if that is forgotten.
    pub(super) fn events_after(&self, revision: Revision) -> Option<impl Iterator<Item = &Event>> {
        let Recent { since, events } = &self.recent;
        let later = events.iter().filter(move |event| event.revision > revision);
        (revision >= *since).then_some(later)
    }

    pub(super) fn lines(&self, guid: &AppGuid) -> Option<Arc<Lines>> {
        self.lines.get_or_init(|| Lines::of(guid, &self.policies).map(Arc::new)).clone()
    }
}
