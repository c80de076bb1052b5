use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use policy::{Revision, Version};
use uuid::Uuid;

use crate::snapshot::Subject;

use super::{
    FORGET_AFTER, Word,
    agents::Agents,
    presence::Presence,
    rows::{Ago, Row, Rows},
    turn::Turn,
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
    pub presence: Presence,
    /// Who says so, and asks about what.
    agents: Agents<Arc<Subject>>,
    /// By which question the word was said.
    turn: Turn,
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

/// What came of a cell's word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// The revision the cell came to enforce since its last word to this server, if it did.
    pub confirmed: Option<Revision>,
    /// Whether several agents say that they are the cell, if that was otherwise before.
    pub are_several: Option<bool>,
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
    /// Notes what `cell` says while its poll is being answered.
    pub(super) fn hear(&mut self, cell: &str, word: Word, now: Instant) -> Heard {
        let Some(known) = self.cells.get_mut(cell) else {
            let cell: Arc<str> = cell.into();
            self.cells.insert(cell.clone(), Receipt::first(word, now));
            self.unwritten.insert(cell);
            return Heard::default();
        };
        known.presence.comes(now);
        let (word, are_several) = known.heard_by(cell, word, now);
        if known.word == word && !known.released {
            return Heard { confirmed: None, are_several };
        }
        let confirmed = word.newer_than(&known.word);
        if word.subject != known.word.subject {
            known.told = None;
        }
        known.word = word;
        known.presence.said = now;
        known.released = false;
        self.unwritten.insert(cell.into());
        Heard { confirmed, are_several }
    }

    /// Whether what `cell` says by a question was said before its last word. It is out of date then, and
    /// says nothing of where the cell is now, nor of how many speak for it.
    pub(super) fn is_overtaken(&self, cell: &str, turn: Turn) -> bool {
        self.cells.get(cell).is_some_and(|known| turn.is_before(known.turn))
    }

    /// Notes by which question the last word of `cell` was said.
    pub(super) fn took(&mut self, cell: &str, turn: Turn) {
        if let Some(known) = self.cells.get_mut(cell) {
            known.turn = turn;
        }
    }

    /// Lets `word` share what was asked about before with the last word of `cell`, if that is the same.
    pub(super) fn share(&self, cell: &str, word: &mut Word) {
        if let Some(known) = self.cells.get(cell).filter(|known| known.word.subject == word.subject)
        {
            word.subject = known.word.subject.clone();
        }
    }

    /// Whether several agents say that they are `cell`.
    pub(super) fn are_several(&self, cell: &str) -> bool {
        self.cells.get(cell).is_some_and(|receipt| receipt.agents.are_several())
    }

    /// What `cell` was told last; nothing, if that may have been another agent.
    pub(super) fn told(&self, cell: &str) -> Option<Told> {
        let receipt = self.cells.get(cell).filter(|receipt| !receipt.agents.are_several())?;
        receipt.told.clone()
    }

    /// Notes what `cell` is told about `subject`.
    pub(super) fn tell(&mut self, cell: &str, subject: &Arc<Subject>, told: Told) {
        let receipt = self.cells.get_mut(cell);
        if let Some(receipt) = receipt.filter(|it| Arc::ptr_eq(&it.word.subject, subject)) {
            receipt.told = Some(told);
        }
    }

    /// A poll of `cell` is answered, which `agent` asked.
    pub(super) fn leave(&mut self, cell: &str, agent: Option<Uuid>, now: Instant) {
        if let Some(receipt) = self.cells.get_mut(cell) {
            receipt.presence.leaves(now);
            receipt.agents.leave(agent, now);
        }
    }

    /// Forgets cells that are gone, and lets go of those that are silent.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.cells.retain(|_, receipt| receipt.presence.silent(now) <= FORGET_AFTER);
        self.release(|receipt| receipt.has_left(now));
    }

    /// Lets go of all cells that are not there.
    pub(super) fn part(&mut self) {
        self.release(|receipt| !receipt.presence.is_held());
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
    /// to this one, or because they were lost; and lets go of nothing another server speaks for. Returns
    /// the cells of which that shows that several agents say that they are it.
    pub(super) fn compare(&mut self, rows: &Rows, server: &str, now: Instant) -> Vec<Arc<str>> {
        let mut several = Vec::new();
        for (cell, receipt) in &mut self.cells {
            let row = rows.of(cell);
            let elsewhere = row.filter(|row| row.server != server && !receipt.has_left(now));
            if elsewhere.is_some_and(|row| receipt.meets(cell, row, now)) {
                self.unwritten.insert(cell.clone());
                several.push(cell.clone());
            }
            let is_ours = row.is_some_and(|row| row.server == server);
            let is_told = is_ours && row.is_some_and(|row| row.word == receipt.word);
            if self.unwritten.contains(cell) {
                continue;
            }
            if is_ours && receipt.released {
                // It left right after its last word, which was written later than it was said.
                receipt.presence.left_later(LATER);
                self.unwritten.insert(cell.clone());
            } else if is_told {
                continue;
            } else if receipt.has_left(now) {
                // Whatever stands there is a later word, or the same.
                receipt.released = row.is_some();
            } else if row.is_none_or(|row| receipt.is_later_than(row.heard)) {
                receipt.presence.said = now;
                self.unwritten.insert(cell.clone());
            }
        }
        several
    }

    /// Takes what the database is to be told now.
    pub(super) fn take_unwritten(&mut self, now: Instant) -> Unwritten {
        let mut unwritten = Unwritten::default();
        for cell in std::mem::take(&mut self.unwritten) {
            let Some(receipt) = self.cells.get(&cell) else { continue };
            let word = receipt.word.clone();
            if receipt.released {
                unwritten.nobodys.push((cell.to_string(), word, receipt.presence.silent(now)));
            } else {
                let said = now.duration_since(receipt.presence.said);
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
    fn first(word: Word, now: Instant) -> Self {
        let mut agents = Agents::default();
        agents.hear(word.agent, word.subject.clone(), now);
        let (presence, turn) = (Presence::begun(now), Turn::default());
        Self { word, presence, agents, turn, released: false, told: None }
    }

    /// What the cell says by `word`, considering who said it; and whether several do, if that is news.
    fn heard_by(&mut self, cell: &str, word: Word, now: Instant) -> (Word, Option<bool>) {
        let were_several = self.agents.are_several();
        self.agents.hear(word.agent, word.subject.clone(), now);
        let are_several = self.agents.are_several();
        let news = (are_several != were_several).then_some(are_several);
        if news.is_some() {
            self.told = None;
        }
        if !are_several {
            return (word, news);
        }
        // Each of them speaks again and again, which is not to be written each time.
        let first = if were_several { &self.word } else { &word };
        let (agent, backend) = (first.agent, first.backend);
        (Word { agent, backend, ..word.of_several(cell, self.agents.topics()) }, news)
    }

    /// Whether what another agent said to another server shows for the first time that there are several.
    fn meets(&mut self, cell: &str, row: &Row, now: Instant) -> bool {
        let were_several = self.agents.are_several();
        self.agents.meet(row.word.agent, row.word.subject.clone(), row.said, row.heard);
        if were_several || !self.agents.are_several() {
            return false;
        }
        self.word = self.word.clone().of_several(cell, self.agents.topics());
        self.told = None;
        self.presence.said = now;
        true
    }

    /// Whether the cell was here after it was elsewhere, then.
    fn is_later_than(&self, elsewhere: Instant) -> bool {
        self.presence.is_later_than(elsewhere) && !self.agents.has_moved()
    }

    /// Whether the cell is not just between two polls.
    pub(super) fn has_left(&self, now: Instant) -> bool {
        self.presence.silent(now) > SILENCE
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
