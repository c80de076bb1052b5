//! Answers on their way. What a caller does not read stays in our memory, so it is counted: all whole
//! answers together have so much room, and who reads nothing for a while is let go. Neither can hurt
//! callers who read.
//!
//! Both protocols let go of a piece of an answer when it is written to the socket, and HTTP/2 keeps it
//! as long as the caller gives no room for it. So pieces count from when the answer gives them until
//! they are dropped. Who gives no room at all is never given a piece; so an answer that could give one
//! counts as well, until it is asked for it.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{body::Body, response::Response};
use hyper::body::{Body as _, Bytes, Frame, SizeHint};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};
use tokio_util::sync::PollSemaphore;

/// Room for all answers of a listener, in pieces of at most [`PIECE`].
const ROOM: usize = 64 << 20;

/// The longest piece; longer ones are cut.
const PIECE: usize = 64 << 10;

/// Answers known to be no longer than this need no room: word of a change must not wait behind those
/// who take everything.
const SMALL: u64 = 16 << 10;

/// Who takes no piece of any answer for so long does not read.
const PATIENCE: Duration = Duration::from_secs(30);

/// Nor does who takes none of one answer for so long, whatever becomes of the others.
const PATIENCE_WITH_ONE: Duration = Duration::from_secs(5 * 60);

/// The room of a listener.
#[derive(Debug, Clone)]
pub(super) struct Flight(Arc<Semaphore>);

/// Who reads answers: one connection.
#[derive(Debug)]
pub(super) struct Reader {
    state: Mutex<State>,
    owed: Notify,
}

#[derive(Debug)]
struct State {
    /// Pieces given that are not taken yet.
    pieces: usize,
    /// Answers that could give a piece, by number, and since when.
    answers: BTreeMap<u64, Instant>,
    /// The number of the last answer.
    last: u64,
    /// When one was taken last, or given to somebody who was owed nothing.
    progress: Instant,
}

/// An answer's body on its way to its reader.
pub(super) struct Carried {
    body: Body,
    /// Cut from what the body gave last.
    rest: Bytes,
    /// `None` for what needs no room.
    room: Option<PollSemaphore>,
    reader: Arc<Reader>,
    /// Its number among the reader's.
    number: u64,
}

/// A piece, and what is undone when it is dropped.
struct Piece {
    bytes: Bytes,
    reader: Arc<Reader>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Flight {
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(ROOM / PIECE)))
    }

    /// `answer`, to be carried to `reader`.
    pub fn carry(&self, answer: Response, reader: &Arc<Reader>) -> Response<Carried> {
        answer.map(|body| {
            let is_small = body.size_hint().upper().is_some_and(|most| most <= SMALL);
            let room = (!is_small).then(|| PollSemaphore::new(self.0.clone()));
            let number = reader.number();
            let carried =
                Carried { body, rest: Bytes::new(), room, reader: reader.clone(), number };
            carried.is_ready();
            carried
        })
    }
}

impl Reader {
    pub fn new() -> Arc<Self> {
        let (progress, answers) = (Instant::now(), BTreeMap::new());
        let state = State { pieces: 0, answers, last: 0, progress };
        Arc::new(Self { state: Mutex::new(state), owed: Notify::new() })
    }

    /// Ends when the reader has not taken anything for too long, although there is something to take.
    pub async fn stalls(&self) {
        loop {
            let Some(deadline) = self.deadline() else {
                self.owed.notified().await;
                continue;
            };
            sleep_until(deadline).await;
            if self.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
                return;
            }
        }
    }

    /// By when something must have been taken, if there is anything to take.
    fn deadline(&self) -> Option<Instant> {
        let state = self.state();
        if !state.owes() {
            return None;
        }
        let of_one = state.answers.values().min().map(|since| *since + PATIENCE_WITH_ONE);
        let of_any = state.progress + PATIENCE;
        Some(of_one.map_or(of_any, |of_one| of_one.min(of_any)))
    }

    fn number(&self) -> u64 {
        let mut state = self.state();
        state.last += 1;
        state.last
    }

    /// There is something to take from now on.
    fn owe(&self, what: impl FnOnce(&mut State, Instant)) {
        let (mut state, now) = (self.state(), Instant::now());
        if !state.owes() {
            state.progress = now;
            self.owed.notify_one();
        }
        what(&mut state, now);
    }

    fn is_given(&self) {
        self.owe(|state, _| state.pieces += 1);
    }

    fn has_taken(&self) {
        let mut state = self.state();
        state.pieces -= 1;
        state.progress = Instant::now();
    }

    fn is_asking(&self, answer: u64) {
        let mut state = self.state();
        let has_asked = state.answers.remove(&answer).is_some();
        // Who is given pieces shows by taking them that they are read, not by being given more.
        if has_asked && state.pieces == 0 {
            state.progress = Instant::now();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn owes(&self) -> bool {
        self.pieces > 0 || !self.answers.is_empty()
    }
}

impl Carried {
    /// It could give a piece, if it is asked for one.
    fn is_ready(&self) {
        if !self.is_end_stream() {
            self.reader.owe(|state, now| _ = state.answers.insert(self.number, now));
        }
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.reader.is_asking(self.number);
    }
}

impl hyper::body::Body for Carried {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.reader.is_asking(self.number);
        // Room first: many bodies make their pieces only when they are asked for them. It is given back
        // if there is nothing to carry yet.
        let room = match &mut self.room {
            // The semaphore is never closed.
            Some(room) => ready!(room.poll_acquire(context)),
            None => None,
        };
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            match frame.into_data() {
                Ok(bytes) => self.rest = bytes,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let length = self.rest.len().min(PIECE);
        let bytes = self.rest.split_to(length);
        self.reader.is_given();
        self.is_ready();
        let piece = Piece { bytes, reader: self.reader.clone(), _room: room };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.reader.has_taken();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use axum::response::IntoResponse;
    use tokio::time::timeout;

    use super::*;

    fn flight(pieces: usize) -> Flight {
        Flight(Arc::new(Semaphore::new(pieces)))
    }

    fn poll(body: &mut Carried) -> Poll<Option<Bytes>> {
        let mut context = Context::from_waker(Waker::noop());
        let frame = Pin::new(body).poll_frame(&mut context);
        frame.map(|frame| frame.map(|frame| frame.unwrap().into_data().unwrap()))
    }

    fn body(flight: &Flight, length: usize) -> Carried {
        flight.carry(vec![b'x'; length].into_response(), &Reader::new()).into_body()
    }

    /// Whether who gives no more room for answers stalls within `time`.
    async fn stalls_within(reader: &Reader, time: Duration) -> bool {
        timeout(time, reader.stalls()).await.is_ok()
    }

    struct Silent;

    impl hyper::body::Body for Silent {
        type Data = Bytes;
        type Error = axum::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
            Poll::Pending
        }
    }

    #[test]
    fn nothing_is_lost_or_added_on_the_way() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
            let mut body = body(&flight(9), length);
            assert_eq!(body.size_hint().exact(), Some(length as u64));
            let mut arrived = 0;
            while let Poll::Ready(Some(bytes)) = poll(&mut body) {
                assert!(bytes.len() <= PIECE);
                arrived += bytes.len();
                assert_eq!(body.size_hint().exact(), Some((length - arrived) as u64));
            }
            assert!(arrived == length && body.is_end_stream(), "{arrived} of {length}");
        }
    }

    #[test]
    fn an_answer_without_room_waits_until_others_are_read_and_a_small_one_does_not() {
        let flight = flight(2);
        let (mut first, mut second) = (body(&flight, 2 * PIECE), body(&flight, PIECE));
        let held = [poll(&mut first), poll(&mut first)];
        assert!(held.iter().all(|piece| matches!(piece, Poll::Ready(Some(_)))));
        assert!(poll(&mut second).is_pending());
        let mut small = body(&flight, usize::try_from(SMALL).unwrap());
        assert!(matches!(poll(&mut small), Poll::Ready(Some(_))));
        drop(held);
        assert!(matches!(poll(&mut second), Poll::Ready(Some(_))));
    }

    #[test]
    fn an_answer_that_has_nothing_to_say_yet_takes_no_room() {
        let flight = flight(1);
        let silent = Body::new(Silent);
        let mut silent = flight.carry(silent.into_response(), &Reader::new()).into_body();
        assert!(poll(&mut silent).is_pending());
        assert!(matches!(poll(&mut body(&flight, PIECE)), Poll::Ready(Some(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_something_now_and_then_reads_and_who_does_not_stalls() {
        let reader = Reader::new();
        let answer = || flight(9).carry(vec![b'x'; 3 * PIECE].into_response(), &reader).into_body();
        let mut stalls = Box::pin(reader.stalls());
        let mut is_patient = async |time| timeout(time, &mut stalls).await.is_err();
        assert!(is_patient(10 * PATIENCE).await, "nothing is owed");
        let mut body = answer();
        for _ in 0..3 {
            let piece = poll(&mut body);
            assert!(is_patient(PATIENCE - Duration::from_secs(1)).await);
            drop(piece);
        }
        assert!(is_patient(10 * PATIENCE).await, "nothing is owed again");
        let _piece = poll(&mut answer());
        assert!(!is_patient(PATIENCE + Duration::from_secs(1)).await);
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn who_gives_no_room_at_all_stalls() {
        let reader = Reader::new();
        let never = flight(9).carry(vec![b'x'; PIECE].into_response(), &reader);
        assert!(!stalls_within(&reader, PATIENCE - SECOND).await);
        assert!(stalls_within(&reader, 2 * SECOND).await);
        drop(never);
        assert!(!stalls_within(&reader, 10 * PATIENCE).await, "it was let go");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_without_a_body_or_with_nothing_to_give_yet_waits_for_nobody() {
        let reader = Reader::new();
        let _empty = flight(9).carry(().into_response(), &reader);
        assert!(!stalls_within(&reader, 10 * PATIENCE).await);
        let silent = Body::new(Silent);
        let mut silent = flight(9).carry(silent.into_response(), &reader).into_body();
        assert!(poll(&mut silent).is_pending());
        assert!(!stalls_within(&reader, 10 * PATIENCE_WITH_ONE).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_one_answer_and_takes_others_stalls_after_a_while() {
        let reader = Reader::new();
        let began = Instant::now();
        let _left = flight(9).carry(vec![b'x'; PIECE].into_response(), &reader);
        let reads = async {
            loop {
                let others = vec![b'x'; PIECE].into_response();
                let mut taken = flight(9).carry(others, &reader).into_body();
                drop(poll(&mut taken));
                tokio::time::sleep(SECOND).await;
            }
        };
        tokio::select! {
            () = reader.stalls() => {}
            () = reads => unreachable!("it has no end"),
        }
        let took = began.elapsed();
        assert!((PATIENCE_WITH_ONE..PATIENCE_WITH_ONE + PATIENCE).contains(&took), "{took:?}");
    }
}
