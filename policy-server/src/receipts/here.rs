use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use policy::Revision;

use super::{
    FORGET_AFTER, Word,
    rows::{Ago, Rows},
};

/// A cell that is silent for longer than a poll is ever held, and then some, is not just between two
/// polls. No server speaks for it any more.
const SILENCE: Duration = Duration::from_secs(90);

/// What cells said to this server.
#[derive(Default)]
pub(super) struct Here {
    cells: BTreeMap<String, Receipt>,
    /// Cells of which the database does not know what this server knows.
    unwritten: BTreeSet<String>,
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
            let receipt = Receipt { word, said: now, heard: now, holding: 1, released: false };
            self.cells.insert(cell.to_owned(), receipt);
            self.unwritten.insert(cell.to_owned());
            return None;
        };
        known.holding += 1;
        known.heard = now;
        if known.word == word && !known.released {
            return None;
        }
        let before = std::mem::replace(&mut known.word, word);
        known.said = now;
        known.released = false;
        self.unwritten.insert(cell.to_owned());
        let (before, after) = (before.enforced?, known.word.enforced.as_ref()?);
        (after.life == before.life && after.revision > before.revision).then_some(after.revision)
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
        for (cell, receipt) in &mut self.cells {
            if receipt.silent(now) > SILENCE && !receipt.released {
                receipt.released = true;
                self.unwritten.insert(cell.clone());
            }
        }
    }

    /// Finds what `rows` do not say as it is, because another server speaks for a cell that came back
    /// to this one, or because they were lost; and lets go of nothing another server speaks for.
    pub(super) fn compare(&mut self, rows: &Rows, server: &str, now: Instant) {
        for (cell, receipt) in &mut self.cells {
            let row = rows.of(cell);
            let is_told = row.is_some_and(|row| row.server == server && row.word == receipt.word);
            if is_told || self.unwritten.contains(cell) {
                continue;
            }
            if receipt.silent(now) > SILENCE {
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
                unwritten.nobodys.push((cell, word, receipt.silent(now)));
            } else {
                unwritten.ours.push((cell, word, now.duration_since(receipt.said)));
            }
        }
        unwritten
    }

    /// Puts back what the database could not be told.
    pub(super) fn put_back(&mut self, unwritten: Unwritten) {
        let Unwritten { ours, nobodys } = unwritten;
        self.unwritten.extend(ours.into_iter().chain(nobodys).map(|(cell, ..)| cell));
    }

    pub(super) fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    pub(super) fn cells(&self) -> &BTreeMap<String, Receipt> {
        &self.cells
    }
}

impl Receipt {
    /// How long the cell has been away.
    pub(super) fn silent(&self, now: Instant) -> Duration {
        if self.holding > 0 { Duration::ZERO } else { now.duration_since(self.heard) }
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
