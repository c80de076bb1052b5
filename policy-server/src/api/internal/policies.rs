use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};
use policy::{Version, wire};

use super::shape::Shape;
use crate::{
    api::{conditional, error::ApiError, json_text, list::list, query, version},
    hold::{Outcome, Poll},
    metrics::{Operation, PollAnswer},
    receipts::{Hearing, Told, Word},
    server::Server,
    snapshot::{Delta, Entry, Snapshot, Subject, Topic},
};

/// A cell that nothing concerned for so many revisions is told, at the end of a wait, that its version
/// is as good as the newest: a version from before what a server remembers costs it the whole.
const STALE: u64 = 256;

/// What a cell asks. It may wait for a minute, so it holds nothing of the request it was read from:
/// headers and query keep whole buffers of their connection.
struct Asked {
    shape: Shape,
    poll: Poll,
    takes_changes: bool,
    /// Whose poll it is.
    cell: Option<Box<str>>,
    /// Which of its questions it is, if it counts them.
    question: Option<u64>,
    /// What it says of that, until it is heard.
    word: Option<Word>,
}

/// Policies with tags, possibly after a while. What the cell says it has is its receipt.
#[expect(clippy::needless_pass_by_value, reason = "what was sent is let go of before waiting")]
pub(crate) fn index(
    State(server): State<Arc<Server>>,
    uri: Uri,
    headers: HeaderMap,
) -> impl Future<Output = Response> {
    let shape = Shape::of_version(&version::named_in(uri.path()));
    let mut asked = Asked::of(shape, &server, uri.query(), &headers);
    async move { asked.answered(&server).await }
}

/// The same, for agents of 2016 that know their shape and no other.
#[expect(clippy::needless_pass_by_value, reason = "what was sent is let go of before waiting")]
pub(crate) fn index_of_2016(
    State(server): State<Arc<Server>>,
    uri: Uri,
    headers: HeaderMap,
) -> impl Future<Output = Response> {
    let mut asked = Asked::of(Shape::Of2016, &server, uri.query(), &headers);
    async move { asked.answered(&server).await }
}

impl Asked {
    fn of(shape: Shape, server: &Server, query: Option<&str>, headers: &HeaderMap) -> Self {
        let (known, wait) = (conditional::known(headers), conditional::wait(headers));
        let cell: Option<Box<str>> = conditional::cell(headers).map(Box::from);
        // Most polls ask what the one before has asked.
        let before = cell.as_deref().and_then(|cell| server.receipts.subject_of(cell));
        let subject = match before.filter(|before| query::repeats(query, before)) {
            Some(before) => before,
            None => Arc::new(server.feed.snapshot().sharing(query::subject(query))),
        };
        let word = || conditional::word(headers, &subject, known.as_ref());
        Self {
            shape,
            takes_changes: shape == Shape::V1 && conditional::takes_changes(headers),
            question: conditional::question(headers),
            word: cell.is_some().then(word),
            cell,
            poll: Poll { topic: Topic::Policies(subject), known, wait },
        }
    }

    async fn answered(&mut self, server: &Server) -> Response {
        if self.poll.known.is_none() && self.cell.is_none() {
            // An agent of the existing system asks once for what it was told is new, and not again if
            // it missed it. Ours is told of whatever comes later when it asks with the version it got.
            server.catch_up().await;
        }
        let said = self.cell.as_deref().zip(self.word.take());
        let question = self.question;
        let hearing = said.map(|(cell, word)| server.receipts.hear(cell, question, word));
        if let Some(hearing) = &hearing {
            self.poll.topic = Topic::Policies(hearing.subject.clone());
            if hearing.is_overtaken {
                // Nobody waits for it any more.
                self.poll.wait = None;
            }
        }
        let outcome = server.hold(&self.poll).await;
        let (answer, version, how) = self.answer(&outcome, server, hearing.as_ref());
        server.metrics.poll_answered(how);
        let answer = match hearing.and_then(|hearing| hearing.refused()) {
            Some(why) => conditional::refusing(answer, &why),
            None => answer,
        };
        conditional::stamped(answer, &version, self.poll.wait)
    }

    /// What is answered, of which version, and how it is told.
    fn answer(
        &self,
        outcome: &Outcome,
        server: &Server,
        hearing: Option<&Hearing<'_>>,
    ) -> (Response, Version, PollAnswer) {
        let known = self.poll.known.as_ref();
        let (snapshot, version) = match outcome {
            // A list for one who knows nothing is as of now. By an older version, right as it were, a
            // cell that asks about one more app than before would take it for older than what it has.
            Outcome::Fresh(snapshot, _) if known.is_none() => {
                (snapshot, snapshot.version().clone())
            }
            Outcome::Fresh(snapshot, version) => (snapshot, version.clone()),
            Outcome::Unchanged(snapshot, known) => {
                let (now, then) = (snapshot.version().revision.0, known.revision.0);
                if !self.takes_changes || now.saturating_sub(then) < STALE {
                    return (conditional::not_modified(), known.clone(), PollAnswer::Unchanged);
                }
                (snapshot, snapshot.version().clone())
            }
        };
        let Topic::Policies(subject) = &self.poll.topic else {
            unreachable!("policies were asked for")
        };
        if self.takes_changes
            && let Some(delta) = delta(snapshot, subject, known, hearing)
        {
            if let Some(hearing) = hearing {
                hearing.tells(Told { at: version.clone(), total: delta.total });
            }
            let change = change(&delta, known);
            let change = match server.feed.waiting().rest() {
                Some(rest) => conditional::resting(change, rest),
                None => change,
            };
            return (change, version, PollAnswer::Delta);
        }
        let list = || self.list(snapshot, subject, server);
        let list = server.metrics.lookup(Operation::about(subject), list);
        (list, version, PollAnswer::Whole)
    }

    /// The list of what `subject` asks for. Agents of the existing system ask for it over and over, and
    /// are told in a form that is kept. A cell of ours asks once, when it comes: kept for all of those,
    /// the lines of all apps would take as much memory as thousands of cells.
    fn list(&self, snapshot: &Snapshot, subject: &Subject, server: &Server) -> Response {
        if let (Subject::Apps(apps), Shape::V1, None) = (subject, self.shape, &self.cell)
            && let Some((count, lines)) = snapshot.lines_of(apps)
        {
            return json_text(format!("{{\"total_policies\":{count},\"policies\":[{lines}]}}"));
        }
        let form = self.shape.form(server.tag_length);
        list(snapshot.policies_of(subject), form, self.shape.counts())
    }
}

/// What became of the list of `subject` since `known`, if that is known and the list is one of apps.
fn delta(
    snapshot: &Snapshot,
    subject: &Subject,
    known: Option<&Version>,
    hearing: Option<&Hearing<'_>>,
) -> Option<Delta> {
    let (Subject::Apps(apps), Some(known)) = (subject, known) else { return None };
    let told = hearing.and_then(|hearing| hearing.told.as_ref()).filter(|told| told.at == *known);
    snapshot.delta(apps, known, told.map(|told| told.total))
}

fn change(Delta { total, removed, added }: &Delta, known: Option<&Version>) -> Response {
    let text = wire::delta::write(*total, removed.iter().map(line), added.iter().map(line));
    let known = known.expect("changes are told to those who know something");
    conditional::change(json_text(text), known)
}

fn line(entry: &Arc<Entry>) -> &str {
    entry.line.tagged()
}

/// A bare number (§5.2).
pub(crate) async fn last_updated(State(server): State<Arc<Server>>) -> Result<String, ApiError> {
    let nanos = match server.feed.last_updated(&*server.store) {
        Some(seen) => server.metrics.lookup(Operation::LastUpdated, || seen),
        None => server.store.last_updated().await.map_err(ApiError::ReadFailed)?,
    };
    Ok(nanos.to_string())
}
