use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Semaphore;

use super::*;
use crate::auth::Identity;

/// Believes every token that is not `bad`; answers when let.
struct Fake {
    questions: AtomicUsize,
    lets: Semaphore,
    lifetime: Mutex<Option<Duration>>,
}

impl Fake {
    fn that_answers(lifetime: Option<Duration>) -> Arc<Self> {
        let lets = Semaphore::new(Semaphore::MAX_PERMITS);
        Arc::new(Self { questions: AtomicUsize::new(0), lets, lifetime: Mutex::new(lifetime) })
    }

    fn questions(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Verifier for Fake {
    async fn verify(&self, token: &str) -> Result<Verified, TokenRefused> {
        self.questions.fetch_add(1, Ordering::SeqCst);
        self.lets.acquire().await.unwrap().forget();
        if token == "bad" {
            return Err(TokenRefused::Invalid(Arc::new(std::io::Error::other("bad"))));
        }
        let identity =
            Identity { subject: token.to_owned(), guid: None, client: None, scopes: Vec::new() };
        let lifetime = *self.lifetime.lock().unwrap();
        Ok(Verified { identity, expires: lifetime.map(|lifetime| SystemTime::now() + lifetime) })
    }
}

const HOUR: Duration = Duration::from_secs(3600);

async fn subject(verifier: &Remembering, token: &str) -> String {
    verifier.verify(token).await.unwrap().identity.subject
}

#[tokio::test]
async fn a_token_is_asked_about_once_and_another_again() {
    let fake = Fake::that_answers(Some(HOUR));
    let verifier = Remembering::new(fake.clone(), HOUR);
    for _ in 0..3 {
        assert_eq!(subject(&verifier, "a").await, "a");
    }
    assert_eq!(fake.questions(), 1);
    assert_eq!(subject(&verifier, "b").await, "b");
    assert_eq!(fake.questions(), 2);
}

#[tokio::test]
async fn what_has_no_known_end_or_is_over_or_is_refused_is_not_remembered() {
    for lifetime in [None, Some(Duration::ZERO)] {
        let fake = Fake::that_answers(lifetime);
        let verifier = Remembering::new(fake.clone(), HOUR);
        assert_eq!(subject(&verifier, "a").await, "a");
        assert_eq!(subject(&verifier, "a").await, "a");
        assert_eq!(fake.questions(), 2, "{lifetime:?}");
    }
    let fake = Fake::that_answers(Some(HOUR));
    let verifier = Remembering::new(fake.clone(), HOUR);
    assert!(verifier.verify("bad").await.is_err());
    assert!(verifier.verify("bad").await.is_err());
    assert_eq!(fake.questions(), 2);
}

#[tokio::test]
async fn callers_with_the_same_token_at_once_share_a_question() {
    let fake = Fake::that_answers(Some(HOUR));
    fake.lets.forget_permits(Semaphore::MAX_PERMITS);
    let verifier = Arc::new(Remembering::new(fake.clone(), HOUR));
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let verifier = verifier.clone();
            tokio::spawn(async move { subject(&verifier, "a").await })
        })
        .collect();
    while fake.questions() == 0 {
        tokio::task::yield_now().await;
    }
    // One who leaves takes nobody along.
    callers[0].abort();
    fake.lets.add_permits(64);
    for caller in callers.into_iter().skip(1) {
        assert_eq!(caller.await.unwrap(), "a");
    }
    assert!(fake.questions() <= 2, "{}", fake.questions());
}

#[test]
fn the_shorter_of_both_times_counts() {
    let now = SystemTime::now();
    let lifetime = Lifetime { at_most: Duration::from_secs(30) };
    let of = |expires| {
        let identity =
            Identity { subject: "a".into(), guid: None, client: None, scopes: Vec::new() };
        lifetime.of(&Verified { identity, expires }, now).as_secs()
    };
    assert_eq!(of(Some(now + HOUR)), 30);
    assert_eq!(of(Some(now + Duration::from_secs(7))), 7);
    assert_eq!((of(Some(now)), of(Some(now - HOUR)), of(None)), (0, 0, 0));
}
