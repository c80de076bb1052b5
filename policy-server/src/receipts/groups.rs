//! What each cell says of its security groups, beside what it says of policies, and perhaps to another
//! server: the two are asked about apart.
//!
//! It is for operators to see and holds nobody up: tags wait for policies alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use policy::{
    Version,
    wire::status::{CellStatus, GroupsStatus},
};
use policy_store::{PolicyStore, StoreError, StoredGroupReceipt};
use uuid::Uuid;

use super::{
    FORGET_AFTER, FRESH, Receipts, agents::Agents, presence::Presence, turn::Turn, word::several,
};
use crate::snapshot::{Snapshot, Topic};

/// What a cell's question about security groups says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupsWord {
    /// What it asks about.
    pub spaces: Arc<BTreeSet<String>>,
    /// What it enforces of that; `None` if it claims nothing.
    pub enforced: Option<Version>,
    /// Why it cannot enforce what it should.
    pub error: Option<String>,
}

/// What cells say of security groups, as far as this server knows.
#[derive(Default)]
pub(crate) struct Groups {
    here: Mutex<Here>,
    rows: Mutex<Arc<Rows>>,
    /// Held by who reads them: what was read earlier never replaces what was read later.
    reading: tokio::sync::Mutex<()>,
}

/// What cells said to all servers, as the database had it when it was read.
#[derive(Default)]
struct Rows {
    cells: BTreeMap<String, Row>,
    read: Option<Instant>,
}

/// What cells said to this server, and of which of them the database does not know.
#[derive(Default, Clone)]
struct Here {
    cells: BTreeMap<Arc<str>, Said>,
    unwritten: BTreeSet<Arc<str>>,
}

/// What one cell said, and when.
#[derive(Debug, Clone)]
struct Said {
    word: GroupsWord,
    presence: Presence,
    /// Who says so.
    agents: Agents<()>,
    /// By which question.
    turn: Turn,
}

/// What the database has of a cell, whichever server wrote it.
struct Row {
    word: GroupsWord,
    said: Instant,
}

/// A question of a cell that is being answered.
pub(crate) struct GroupsHearing<'a> {
    groups: &'a Groups,
    cell: &'a str,
    agent: Option<Uuid>,
    /// Whether the agent has asked another since, which was heard already.
    pub is_overtaken: bool,
}

impl Receipts {
    /// Notes what `cell` says of security groups by this question.
    pub(crate) fn hear_of_groups<'a>(
        &'a self,
        cell: &'a str,
        turn: Turn,
        word: GroupsWord,
    ) -> GroupsHearing<'a> {
        let mut here = self.groups.here();
        let is_overtaken = here.is_overtaken(cell, turn);
        if !is_overtaken && here.hear(cell, turn, word, Instant::now()) {
            self.news.notify_one();
        }
        drop(here);
        GroupsHearing { groups: &self.groups, cell, agent: turn.agent, is_overtaken }
    }
}

impl Groups {
    /// Tells of each of `cells` what it said of security groups, beside what `snapshot` wants of it.
    pub(crate) fn tell(&self, cells: &mut [CellStatus], snapshot: &Snapshot) {
        let (here, rows) = (self.here_copied(), self.rows());
        for status in cells {
            let row = rows.cells.get(&status.cell);
            let said = here.cells.get(status.cell.as_str());
            let said =
                said.filter(|said| row.is_none_or(|row| said.presence.is_later_than(row.said)));
            let word = said.map(|said| &said.word).or_else(|| row.map(|row| &row.word));
            status.security_groups = word.map(|word| word.status(snapshot));
        }
    }

    /// What cells said to this server, and to no other since, and for how long they have been silent.
    pub(crate) fn of_this_server(&self, snapshot: &Snapshot) -> Vec<(GroupsStatus, Duration)> {
        let now = Instant::now();
        let (here, rows) = (self.here_copied(), self.rows());
        let heard = here.cells.iter().filter(|(cell, said)| {
            let row = rows.cells.get(&***cell);
            row.is_none_or(|row| said.presence.is_later_than(row.said))
        });
        heard.map(|(_, said)| (said.word.status(snapshot), said.presence.silent(now))).collect()
    }

    pub(super) fn has_unwritten(&self) -> bool {
        !self.here().unwritten.is_empty()
    }

    /// Writes what the database does not know yet; how many cells that is about.
    pub(super) async fn write(&self, store: &dyn PolicyStore) -> Result<usize, StoreError> {
        let unwritten = self.here().take_unwritten(Instant::now());
        let written = store.write_group_receipts(&unwritten).await;
        if written.is_err() {
            let cells = unwritten.into_iter().map(|receipt| receipt.cell.into());
            self.here().unwritten.extend(cells);
            return written.map(|()| 0);
        }
        Ok(unwritten.len())
    }

    /// Reads what the database has, unless somebody just did.
    pub(super) async fn read(&self, store: &dyn PolicyStore) -> Result<(), StoreError> {
        let _alone = self.reading.lock().await;
        if self.rows().are_fresh(FRESH, Instant::now()) {
            return Ok(());
        }
        let now = Instant::now();
        let rows = store.group_receipts().await?.into_iter().map(|stored| Row::of(stored, now));
        let rows = Arc::new(Rows { cells: rows.collect(), read: Some(now) });
        self.here().compare(&rows, now);
        *self.rows.lock().unwrap_or_else(PoisonError::into_inner) = rows;
        Ok(())
    }

    /// Forgets cells that are gone.
    pub(super) async fn forget(&self, store: &dyn PolicyStore) -> Result<(), StoreError> {
        let now = Instant::now();
        self.here().cells.retain(|_, said| said.presence.silent(now) <= FORGET_AFTER);
        store.forget_group_receipts(FORGET_AFTER).await.map(drop)
    }

    fn rows(&self) -> Arc<Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A copy, for who goes through all of it: cells are not to wait so long.
    fn here_copied(&self) -> Here {
        self.here().clone()
    }

    /// A panic elsewhere leaves it whole, since no entry is ever half-written.
    fn here(&self) -> MutexGuard<'_, Here> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Here {
    /// Notes what `cell` says while its question is being answered. Whether that is new.
    fn hear(&mut self, cell: &str, turn: Turn, word: GroupsWord, now: Instant) -> bool {
        let Some(known) = self.cells.get_mut(cell) else {
            let mut agents = Agents::default();
            agents.hear(turn.agent, (), now);
            let cell: Arc<str> = cell.into();
            let said = Said { word, presence: Presence::begun(now), agents, turn };
            self.cells.insert(cell.clone(), said);
            self.unwritten.insert(cell);
            return true;
        };
        known.presence.comes(now);
        known.agents.hear(turn.agent, (), now);
        known.turn = turn;
        let word = if known.agents.are_several() { word.of_several(cell) } else { word };
        if known.word == word {
            return false;
        }
        (known.word, known.presence.said) = (word, now);
        self.unwritten.insert(cell.into());
        true
    }

    /// Whether what `cell` says by a question was said before its last word.
    fn is_overtaken(&self, cell: &str, turn: Turn) -> bool {
        self.cells.get(cell).is_some_and(|known| turn.is_before(known.turn))
    }

    fn leave(&mut self, cell: &str, agent: Option<Uuid>, now: Instant) {
        if let Some(said) = self.cells.get_mut(cell) {
            said.presence.leaves(now);
            said.agents.leave(agent, now);
        }
    }

    /// Finds what `rows` do not say as it is: a cell has come back here from another server, or they were
    /// lost.
    fn compare(&mut self, rows: &Rows, now: Instant) {
        for (cell, said) in &mut self.cells {
            let row = rows.cells.get(&**cell);
            let is_told = row.is_some_and(|row| row.word == said.word);
            if is_told || self.unwritten.contains(cell) {
                continue;
            }
            if row.is_none_or(|row| said.presence.is_later_than(row.said)) {
                said.presence.said = now;
                self.unwritten.insert(cell.clone());
            }
        }
    }

    fn take_unwritten(&mut self, now: Instant) -> Vec<StoredGroupReceipt> {
        let cells = std::mem::take(&mut self.unwritten).into_iter();
        let stored = cells.filter_map(|cell| {
            let Said { word, presence, .. } = self.cells.get(&cell)?;
            let GroupsWord { spaces, enforced, error } = word.clone();
            let age = now.duration_since(presence.said);
            let (cell, spaces) = (cell.to_string(), Arc::unwrap_or_clone(spaces));
            Some(StoredGroupReceipt { cell, enforced, spaces, error, age })
        });
        stored.collect()
    }
}

impl Rows {
    /// Whether they were read within `age`.
    fn are_fresh(&self, age: Duration, now: Instant) -> bool {
        self.read.is_some_and(|read| now.duration_since(read) <= age)
    }
}

impl Row {
    fn of(stored: StoredGroupReceipt, now: Instant) -> (String, Self) {
        let StoredGroupReceipt { cell, enforced, spaces, error, age } = stored;
        let word = GroupsWord { spaces: spaces.into(), enforced, error };
        (cell, Self { word, said: now.checked_sub(age).unwrap_or(now) })
    }
}

impl GroupsWord {
    /// What a cell is said to say whose name several agents say.
    fn of_several(self, cell: &str) -> Self {
        Self { enforced: None, error: Some(several(cell)), ..self }
    }

    /// Beside what `snapshot` wants. A version that is not in it, of another life or of before a backup
    /// was restored, proves nothing.
    fn status(&self, snapshot: &Snapshot) -> GroupsStatus {
        let Self { spaces, enforced, error } = self;
        let topic = Topic::SecurityGroups(spaces.clone());
        let enforced = enforced.as_ref().filter(|enforced| snapshot.version().includes(enforced));
        GroupsStatus {
            enforced: enforced.map(|version| version.revision.0),
            wanted: snapshot.version_for(&topic, None).revision.0,
            spaces: spaces.len(),
            error: error.clone(),
        }
    }
}

impl Drop for GroupsHearing<'_> {
    fn drop(&mut self) {
        if !self.is_overtaken {
            self.groups.here().leave(self.cell, self.agent, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use policy::{Life, Revision, TagLength};
    use policy_store::State;

    use super::*;
    use crate::metrics::Metrics;

    fn version(revision: u64) -> Version {
        Version { life: Life::new("life").unwrap(), revision: Revision(revision) }
    }

    fn word(enforced: Option<u64>) -> GroupsWord {
        let enforced = enforced.map(version);
        GroupsWord { spaces: Arc::new(["a".to_owned()].into()), enforced, error: None }
    }

    fn snapshot() -> Snapshot {
        let state = State {
            compacted: Revision(9),
            version: version(9),
            policies: vec![],
            leases: vec![],
            security_groups: None,
            log: vec![],
        };
        Snapshot::of(state, TagLength::DEFAULT)
    }

    fn rows(of: &[(&str, u64, Instant)]) -> Rows {
        let row = |&(cell, enforced, said): &(&str, u64, Instant)| {
            (cell.to_owned(), Row { word: word(Some(enforced)), said })
        };
        Rows { cells: of.iter().map(row).collect(), read: None }
    }

    fn enforced(groups: &Groups, cell: &str) -> Option<u64> {
        let mut cells = [CellStatus { cell: cell.to_owned(), ..CellStatus::default() }];
        groups.tell(&mut cells, &snapshot());
        let [CellStatus { security_groups, .. }] = cells;
        security_groups.map(|told| told.enforced.unwrap_or_default())
    }

    #[test]
    fn the_last_word_counts_whichever_server_heard_it() {
        let (groups, now) = (Groups::default(), Instant::now());
        let later = now + Duration::from_secs(1);
        for cell in ["held here", "gone there", "come back"] {
            groups.here().hear(cell, Turn::default(), word(Some(4)), now);
        }
        groups.here().leave("gone there", None, now);
        groups.here().leave("come back", None, later);
        let there = [("held here", 5, later), ("gone there", 6, later), ("come back", 7, now)];
        *groups.rows.lock().unwrap() = Arc::new(rows(&[&there[..], &[("there", 8, now)]].concat()));
        assert_eq!(groups.of_this_server(&snapshot()).len(), 2, "one has gone elsewhere");
        let told = ["held here", "gone there", "come back", "there", "nowhere"]
            .map(|cell| enforced(&groups, cell));
        assert_eq!(told, [Some(4), Some(6), Some(4), Some(8), None]);
    }

    #[test]
    fn what_is_new_is_written_once_and_what_was_lost_again() {
        let (mut here, now) = (Here::default(), Instant::now());
        assert!(here.hear("one", Turn::default(), word(Some(4)), now));
        assert!(!here.hear("one", Turn::default(), word(Some(4)), now));
        assert_eq!(here.take_unwritten(now).len(), 1);
        assert_eq!(here.take_unwritten(now), []);
        assert!(here.hear("one", Turn::default(), word(None), now), "it takes back what it said");
        assert_eq!(here.take_unwritten(now)[0].enforced, None);

        here.compare(&rows(&[("one", 4, now)]), now);
        assert_eq!(here.take_unwritten(now).len(), 1, "there stands something else");
        here.leave("one", None, now);
        here.leave("one", None, now);
        here.leave("one", None, now);
        here.compare(&rows(&[("one", 4, now + Duration::from_secs(1))]), now);
        assert_eq!(here.take_unwritten(now), [], "it was elsewhere since");
        here.compare(&rows(&[]), now);
        assert_eq!(here.take_unwritten(now).len(), 1, "it was lost");
    }

    #[test]
    fn a_question_that_was_overtaken_says_nothing() {
        let receipts = Receipts::new(Metrics::new());
        let turn = |question| Turn { agent: Some(Uuid::nil()), question: Some(question) };
        let hear = |question, enforced| {
            receipts.hear_of_groups("one", turn(question), word(enforced)).is_overtaken
        };
        assert!(!hear(3, Some(5)));
        assert!(hear(2, None));
        assert!(!receipts.groups.here().cells["one"].presence.is_held());
        assert_eq!(enforced(&receipts.groups, "one"), Some(5));
        assert!(!hear(4, None));
    }

    #[test]
    fn a_version_of_another_life_is_no_receipt() {
        let status = |word: GroupsWord| word.status(&snapshot());
        let GroupsStatus { enforced, wanted, spaces, error: _ } = status(word(Some(9)));
        assert_eq!((enforced, wanted, spaces), (Some(9), 9, 1));
        assert_eq!(status(word(Some(10))).enforced, None, "nobody wrote that yet");
        let life = Life::new("other").unwrap();
        let other = Some(Version { life, revision: Revision(9) });
        assert_eq!(status(GroupsWord { enforced: other, ..word(None) }).enforced, None);
    }
}
