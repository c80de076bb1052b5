use std::sync::Arc;

use policy::{Revision, Version};
use uuid::Uuid;

use crate::snapshot::{Snapshot, Subject};

/// What a cell's poll says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    /// What it asks about.
    pub subject: Arc<Subject>,
    /// What it enforces of that. Without a version it claims nothing: what it enforced of other apps
    /// says nothing about these.
    pub enforced: Option<Version>,
    /// What its kernel filters with.
    pub backend: Option<Backend>,
    /// Why it cannot enforce what it should.
    pub error: Option<String>,
    /// Which agent says so, by the name it took when it was started; `None` if it does not tell.
    pub agent: Option<Uuid>,
}

/// What a kernel filters with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Iptables,
    Nftables,
}

/// What troubles a cell whose name is that of several.
pub(super) fn several(cell: &str) -> String {
    format!("two agents say they are {cell}")
}

impl Word {
    /// What a cell is said to say whose name several agents say that ask about `subjects`: of which of them
    /// a receipt is, nobody knows.
    pub(super) fn of_several<'a>(
        self,
        cell: &str,
        subjects: impl Iterator<Item = &'a Arc<Subject>>,
    ) -> Self {
        let subject = Arc::new(subjects.fold((*self.subject).clone(), both));
        Self { subject, enforced: None, error: Some(several(cell)), ..self }
    }

    /// The revision the cell came to enforce since it said `before`, if it did.
    pub(super) fn newer_than(&self, before: &Self) -> Option<Revision> {
        let (before, after) = (before.enforced.as_ref()?, self.enforced.as_ref()?);
        (after.life == before.life && after.revision > before.revision).then_some(after.revision)
    }

    /// The revision the cell enforces of what it asks for. One that is not in the snapshot, of another
    /// life or of before a backup was restored, proves nothing. If the snapshot is only late, it counts
    /// in a moment.
    pub(super) fn enforced(&self, snapshot: &Snapshot) -> Option<Revision> {
        let enforced = self.enforced.as_ref();
        Some(enforced.filter(|enforced| snapshot.version().includes(enforced))?.revision)
    }

    /// The newest revision that concerns the cell.
    pub(super) fn wanted(&self, snapshot: &Snapshot) -> Revision {
        snapshot.version_of(&self.subject).revision
    }

    /// Everything up to here is in force on the cell, as far as it concerns it. A cell that enforces
    /// what it asks for is as good as one that enforces everything: nothing since then concerned it.
    pub(super) fn confirmed(&self, snapshot: &Snapshot) -> Revision {
        match self.enforced(snapshot) {
            Some(enforced) if enforced >= self.wanted(snapshot) => snapshot.version().revision,
            Some(enforced) => enforced,
            None => Revision::default(),
        }
    }
}

/// What asks about `all` and about `more`.
fn both(all: Subject, more: &Arc<Subject>) -> Subject {
    match (all, &**more) {
        (Subject::Apps(mut apps), Subject::Apps(more)) => {
            apps.extend(more.iter().cloned());
            Subject::Apps(apps)
        }
        _ => Subject::Everything,
    }
}

impl Backend {
    /// The one called `name`, as [`Backend::as_str`] has it.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Iptables, Self::Nftables].into_iter().find(|backend| backend.as_str() == name)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}
