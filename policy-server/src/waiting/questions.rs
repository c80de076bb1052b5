//! Which questions are about an app. A cell asks the same again with every poll, so that its question keeps
//! its place from one poll to the next: to come back costs a look, not one for each of its apps.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use policy::AppGuid;
use tokio::time::Instant;

use super::{Id, by_key::ByKey};
use crate::snapshot::Subject;

/// A question nobody has asked for so long loses its place: who holds it comes back sooner.
const KEPT: Duration = Duration::from_secs(60);

/// Questions about apps, and who waits for answers.
pub(super) struct Questions {
    asked: HashMap<Key, Question>,
    by_app: ByKey<AppGuid, Key>,
    swept: Instant,
}

/// Where a question is in memory, which is nowhere else's as long as the question is kept.
type Key = usize;

struct Question {
    subject: Arc<Subject>,
    waiting: Vec<Id>,
    /// Whether anybody asked since the last sweep.
    is_fresh: bool,
}

impl Questions {
    /// Lets `id` wait for changes of `subject`.
    pub(super) fn register(&mut self, subject: &Arc<Subject>, id: Id) {
        let now = Instant::now();
        if now.duration_since(self.swept) > KEPT {
            self.sweep();
            self.swept = now;
        }
        let key = key(subject);
        let question = self.asked.entry(key).or_insert_with(|| {
            self.by_app.insert(apps(subject), key);
            Question { subject: subject.clone(), waiting: Vec::new(), is_fresh: true }
        });
        question.is_fresh = true;
        question.waiting.push(id);
    }

    /// `id` does not wait any more.
    pub(super) fn forget(&mut self, subject: &Arc<Subject>, id: Id) {
        let key = key(subject);
        let Some(question) = self.asked.get_mut(&key) else { return };
        question.waiting.retain(|waiting| *waiting != id);
        // Besides this one nobody but who has just left holds it: it cannot come back.
        if question.waiting.is_empty() && Arc::strong_count(subject) <= 2 {
            self.remove(key);
        }
    }

    /// Who waits for changes of any of `apps`.
    pub(super) fn about<'a>(
        &'a self,
        apps: impl IntoIterator<Item = &'a AppGuid>,
    ) -> impl Iterator<Item = Id> {
        let asked: BTreeSet<Key> = self.by_app.any_of(apps).collect();
        asked.into_iter().filter_map(|key| self.asked.get(&key)).flat_map(Question::waiting)
    }

    /// Who waits for changes of any app at all.
    pub(super) fn about_any(&self) -> impl Iterator<Item = Id> {
        let about_any = |question: &&Question| !apps(&question.subject).is_empty();
        self.asked.values().filter(about_any).flat_map(Question::waiting)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.by_app.is_empty()
    }

    fn sweep(&mut self) {
        let is_stale = |question: &Question| question.waiting.is_empty() && !question.is_fresh;
        let stale = self.asked.iter().filter(|(_, question)| is_stale(question));
        for key in stale.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.remove(key);
        }
        for question in self.asked.values_mut() {
            question.is_fresh = false;
        }
    }

    fn remove(&mut self, key: Key) {
        if let Some(question) = self.asked.remove(&key) {
            self.by_app.remove(apps(&question.subject), &key);
        }
    }
}

impl Question {
    fn waiting(&self) -> impl Iterator<Item = Id> {
        self.waiting.iter().copied()
    }
}

impl Default for Questions {
    fn default() -> Self {
        let (asked, by_app) = (HashMap::new(), ByKey::default());
        Self { asked, by_app, swept: Instant::now() }
    }
}

fn key(subject: &Arc<Subject>) -> Key {
    Arc::as_ptr(subject).addr()
}

/// Who asks for everything is not kept here.
fn apps(subject: &Subject) -> &BTreeSet<AppGuid> {
    static NONE: BTreeSet<AppGuid> = BTreeSet::new();
    match subject {
        Subject::Apps(apps) => apps,
        Subject::Everything => &NONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(app: &str) -> Arc<Subject> {
        Arc::new(Subject::Apps([app.parse().unwrap()].into()))
    }

    fn waiting(questions: &Questions, app: &str) -> Vec<Id> {
        questions.about([&app.parse().unwrap()]).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_keeps_its_place_between_two_polls_and_not_for_ever() {
        let (mut questions, web) = (Questions::default(), subject("web"));
        let kept = web.clone();
        questions.register(&web, 1);
        questions.forget(&web, 1);
        assert_eq!((questions.asked.len(), waiting(&questions, "web")), (1, Vec::new()));
        questions.register(&web, 2);
        questions.register(&kept, 3);
        assert_eq!((questions.asked.len(), waiting(&questions, "web")), (1, vec![2, 3]));
        let db = subject("db");
        let pass = async |questions: &mut Questions, id| {
            tokio::time::advance(KEPT + Duration::from_secs(1)).await;
            questions.register(&db, id);
            questions.forget(&db, id);
        };
        for id in 4..8 {
            pass(&mut questions, id).await;
        }
        assert_eq!(waiting(&questions, "web"), [2, 3], "who waits is never swept away");
        for id in 2..4 {
            questions.forget(&web, id);
        }
        pass(&mut questions, 8).await;
        pass(&mut questions, 9).await;
        assert!(questions.is_empty());
    }

    #[tokio::test]
    async fn a_question_nobody_holds_is_gone_with_who_asked_it() {
        let mut questions = Questions::default();
        for id in 0..100 {
            let web = subject("web");
            questions.register(&web, id);
            assert_eq!(waiting(&questions, "web"), [id]);
            questions.forget(&web, id);
            assert!(questions.is_empty());
        }
    }
}
