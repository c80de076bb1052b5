use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use policy::{Revision, Version};

use crate::snapshot::Subject;

use super::{
    FORGET_AFTER, Word,
    rows::{Ago, Rows},
};

/// A cell that has left for this long is not just between two polls, which follow each other at once.
/// No server speaks for it any more, until it speaks to one again: it costs two writes to be away, and
/// none to be there.
const SILENCE: Duration = Duration::from_secs(10);

/// How much later a cell is said to have left when the database took its last word for a later one.
const LATER: Duration = Duration::from_secs(1);

/// What cells said to this server.
#[derive(Default, Clone)]
pub(super) struct Here {
    cells: BTreeMap<Arc<str>, Receipt>,
    /// Cells of which the database does not know what this server knows.
    unwritten: BTreeSet<Arc<str>>,
}

/// What one cell said, and when.
#[derive(Debug, Clone)]
pub(super) struct Receipt {
    pub word: Word,
    /// When it said so first.
    pub said: Instant,
    /// When it was there last, if no poll of it is being answered.
    pub heard: Instant,
    /// How many polls of it are being answered.
    pub holding: usize,
    /// Whether the database knows that this server does not speak for the cell any more.
    released: bool,
    /// What it was told last of what it asks about.
    told: Option<Told>,
}

/// How many policies a cell has as of a version, by the last change it was told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub at: Version,
    pub total: usize,
}

/// What the database is to be told.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Unwritten {
    /// Of cells this server speaks for, and how long ago they said so.
    pub ours: Vec<Ago>,
    /// Of cells that are not heard of any more, and for how long.
    pub nobodys: Vec<Ago>,
}

impl Here {
    /// Notes what `cell` says while its poll is being answered. Returns the revision the cell came to
    /// enforce since its last word to this server, if it did.
    pub(super) fn hear(&mut self, cell: &str, word: Word, now: Instant) -> Option<Revision> {
        let Some(known) = self.cells.get_mut(cell) else {
            let (said, heard) = (now, now);
            let receipt = Receipt { word, said, heard, holding: 1, released: false, told: None };
            let cell: Arc<str> = cell.into();
            self.cells.insert(cell.clone(), receipt);
            self.unwritten.insert(cell);
            return None;
        };
        known.holding += 1;
        known.heard = now;
        if known.word == word && !known.released {
            return None;
        }
        let before = std::mem::replace(&mut known.word, word);
        if before.subject != known.word.subject {
            known.told = None;
        }
        known.said = now;
        known.released = false;
        self.unwritten.insert(cell.into());
        let (before, after) = (before.enforced?, known.word.enforced.as_ref()?);
        (after.life == before.life && after.revision > before.revision).then_some(after.revision)
    }

    /// Lets `word` share what was asked about before with the last word of `cell`, if that is the same.
    pub(super) fn share(&self, cell: &str, word: &mut Word) {
        if let Some(known) = self.cells.get(cell).filter(|known| known.word.subject == word.subject)
        {
            word.subject = known.word.subject.clone();
        }
    }

    /// What `cell` was told last.
    pub(super) fn told(&self, cell: &str) -> Option<Told> {
        self.cells.get(cell)?.told.clone()
    }

    /// Notes what `cell` is told about `subject`.
    pub(super) fn tell(&mut self, cell: &str, subject: &Arc<Subject>, told: Told) {
        let receipt = self.cells.get_mut(cell);
        if let Some(receipt) = receipt.filter(|it| Arc::ptr_eq(&it.word.subject, subject)) {
            receipt.told = Some(told);
        }
    }

    /// A poll of `cell` is answered.
    pub(super) fn leave(&mut self, cell: &str, now: Instant) {
        if let Some(receipt) = self.cells.get_mut(cell) {
            receipt.holding -= 1;
            receipt.heard = now;
        }
    }

    /// Forgets cells that are gone, and lets go of those that are silent.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.cells.retain(|_, receipt| receipt.silent(now) <= FORGET_AFTER);
        self.release(|receipt| receipt.has_left(now));
    }

    /// Lets go of all cells that are not there.
    pub(super) fn part(&mut self) {
        self.release(|receipt| receipt.holding == 0);
    }

    fn release(&mut self, which: impl Fn(&Receipt) -> bool) {
        for (cell, receipt) in &mut self.cells {
            if !receipt.released && which(receipt) {
                receipt.released = true;
                self.unwritten.insert(cell.clone());
            }
        }
    }

    /// Whether this server speaks for any cell.
    pub(super) fn speaks_for_any(&self) -> bool {
        self.cells.values().any(|receipt| !receipt.released)
    }

    /// Finds what `rows` do not say as it is, because another server speaks for a cell that came back
    /// to this one, or because they were lost; and lets go of nothing another server speaks for.
    pub(super) fn compare(&mut self, rows: &Rows, server: &str, now: Instant) {
        for (cell, receipt) in &mut self.cells {
            let row = rows.of(cell);
            let is_ours = row.is_some_and(|row| row.server == server);
            let is_told = is_ours && row.is_some_and(|row| row.word == receipt.word);
            if self.unwritten.contains(cell) {
                continue;
            }
            if is_ours && receipt.released {
                // It left right after its last word, which was written later than it was said.
                receipt.heard += LATER;
                self.unwritten.insert(cell.clone());
            } else if is_told {
                continue;
            } else if receipt.has_left(now) {
                // Whatever stands there is a later word, or the same.
                receipt.released = row.is_some();
            } else if row.is_none_or(|row| receipt.is_later_than(row.heard)) {
                receipt.said = now;
                self.unwritten.insert(cell.clone());
            }
        }
    }

    /// Takes what the database is to be told now.
    pub(super) fn take_unwritten(&mut self, now: Instant) -> Unwritten {
        let mut unwritten = Unwritten::default();
        for cell in std::mem::take(&mut self.unwritten) {
            let Some(receipt) = self.cells.get(&cell) else { continue };
            let word = receipt.word.clone();
            if receipt.released {
                unwritten.nobodys.push((cell.to_string(), word, receipt.silent(now)));
            } else {
                let said = now.duration_since(receipt.said);
                unwritten.ours.push((cell.to_string(), word, said));
            }
        }
        unwritten
    }

    /// Puts back what the database could not be told.
    pub(super) fn put_back(&mut self, unwritten: Unwritten) {
        let Unwritten { ours, nobodys } = unwritten;
        self.unwritten.extend(ours.into_iter().chain(nobodys).map(|(cell, ..)| cell.into()));
    }

    pub(super) fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    pub(super) fn cells(&self) -> &BTreeMap<Arc<str>, Receipt> {
        &self.cells
    }
}

impl Receipt {
    /// How long the cell has been away.
    pub(super) fn silent(&self, now: Instant) -> Duration {
        if self.holding > 0 { Duration::ZERO } else { now.duration_since(self.heard) }
    }

    /// Whether the cell is not just between two polls.
    pub(super) fn has_left(&self, now: Instant) -> bool {
        self.silent(now) > SILENCE
    }

    /// Whether the cell was here after it was elsewhere, then.
    pub(super) fn is_later_than(&self, elsewhere: Instant) -> bool {
        self.holding > 0 || self.heard >= elsewhere
    }
}

impl Unwritten {
    pub(super) fn is_empty(&self) -> bool {
        self.ours.is_empty() && self.nobodys.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.ours.len() + self.nobodys.len()
    }
}
