use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use policy_store::{HeardReceipt, StoredReceipt};

use super::{Backend, RETURN, Word, here::Here};
use crate::snapshot::Subject;

/// A server without a sign of life for this long is gone: it gives one every ten seconds. What it
/// reported counts for a minute, by which time others must speak for its cells.
pub(super) const GONE: Duration = Duration::from_secs(25);

/// A server that lives has given a sign within this.
const SIGN_DUE: Duration = Duration::from_secs(12);

/// So soon after a cell has left, the server it went to may be lost and nobody know it yet: it is not
/// taken for gone before [`GONE`], nor is that read at once.
const UNSETTLED: Duration = Duration::from_secs(40);

/// What stands where no server speaks for a cell.
pub(super) const NOBODY: &str = "";

/// What cells said to all servers, as the database had it when it was read.
#[derive(Debug, Default)]
pub(super) struct Rows {
    cells: BTreeMap<String, Row>,
    read: Option<Instant>,
    /// Whether a server is gone that did not take leave.
    pub is_server_lost: bool,
}

/// What one cell said.
#[derive(Debug)]
pub(super) struct Row {
    /// To whom; [`NOBODY`] once it was not heard of for a while.
    pub server: String,
    pub word: Word,
    pub said: Instant,
    /// When it was there last: a server that lives hears the cells it speaks for.
    pub heard: Instant,
    /// Whether no server that lives speaks for it.
    pub is_orphan: bool,
    /// When the server that speaks for it gave its last sign of life.
    sign: Instant,
}

/// What a cell said, and how long ago something was.
pub(super) type Ago = (String, Word, Duration);

impl Rows {
    /// What was read just now.
    pub(super) fn of_heard(heard: Vec<HeardReceipt>, now: Instant) -> Self {
        let cells = heard.into_iter().map(|heard| Row::of_heard(heard, now)).collect();
        Self { cells, read: Some(now), is_server_lost: false }
    }

    /// Keeps what `here` has as well in one place with that.
    pub(super) fn share(&mut self, here: &Here) {
        for (cell, row) in &mut self.cells {
            here.share(cell, &mut row.word);
        }
    }

    pub(super) fn of(&self, cell: &str) -> Option<&Row> {
        self.cells.get(cell)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Row)> {
        self.cells.iter()
    }

    /// Whether a cell's last word may be lost: the one it said to the server it said `row` to, which
    /// went without leave, or to any such server.
    pub(super) fn may_lack_the_last_of(&self, row: &Row, now: Instant) -> bool {
        let may_have_spoken = || self.may_lack_the_last(now.duration_since(row.heard));
        row.is_orphan && (row.server != NOBODY || may_have_spoken())
    }

    /// The same of a cell that left `ago`, and may have spoken to another server since.
    pub(super) fn may_lack_the_last(&self, ago: Duration) -> bool {
        self.is_server_lost || ago < UNSETTLED
    }

    /// Whether they were read within `age`.
    pub(super) fn are_fresh(&self, age: Duration, now: Instant) -> bool {
        self.read.is_some_and(|read| now.duration_since(read) <= age)
    }
}

impl Row {
    fn of_heard(heard: HeardReceipt, now: Instant) -> (String, Self) {
        let HeardReceipt { server, receipt, server_silent } = heard;
        let StoredReceipt { cell, enforced, apps, backend, error, agent, age } = receipt;
        let subject = apps.map_or(Subject::Everything, Subject::Apps);
        let backend = backend.as_deref().and_then(Backend::named);
        let word = Word { subject: Arc::new(subject), enforced, backend, error, agent };
        let ago = |time: Duration| now.checked_sub(time).unwrap_or(now);
        let silent = if server == NOBODY { age } else { age.min(server_silent) };
        let is_orphan = server == NOBODY || server_silent > GONE;
        let sign = ago(server_silent);
        (cell, Self { server, word, said: ago(age), heard: ago(silent), is_orphan, sign })
    }

    /// Whether the cell may have said something else since, to a server that was killed before it wrote
    /// it, and may not have had the time yet to say so again. Who was `started` a short while ago has
    /// perhaps replaced that server, unless it gave a sign since.
    pub(super) fn is_in_doubt(&self, started: Instant, now: Instant) -> bool {
        let is_overdue = now.duration_since(self.sign) > SIGN_DUE && !self.is_orphan;
        let is_before_us = self.sign < started && now.duration_since(started) < RETURN;
        self.server != NOBODY && (is_overdue || is_before_us)
    }
}

/// What is written of `word`, said `age` ago.
pub(super) fn stored((cell, word, age): Ago) -> StoredReceipt {
    let Word { subject, enforced, backend, error, agent } = word;
    let apps = match &*subject {
        Subject::Everything => None,
        Subject::Apps(apps) => Some(apps.clone()),
    };
    let backend = backend.map(|backend| backend.as_str().to_owned());
    StoredReceipt { cell, enforced, apps, backend, error, agent, age }
}
