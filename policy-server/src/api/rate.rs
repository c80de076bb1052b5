//! How often one caller may ask. Callers are told apart by the subject of their token, not by
//! address: behind the platform's router all have the same.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::NoOpMiddleware,
    state::keyed::HashMapStateStore,
};

use super::{error::ApiError, settings::RateLimit};
use crate::auth::Identity;

/// Fewer subjects than this are not worth a look for idle ones.
const FEW: usize = 1024;

/// What each subject has left.
pub(crate) struct Limiter<C: Clock = DefaultClock> {
    subjects: RateLimiter<String, HashMapStateStore<String>, C, NoOpMiddleware<C::Instant>>,
    clock: C,
    /// At how many subjects the idle ones are forgotten.
    full: AtomicUsize,
}

impl Limiter {
    pub(crate) fn new(limit: RateLimit) -> Self {
        Self::with_clock(limit, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Limiter<C> {
    fn with_clock(limit: RateLimit, clock: C) -> Self {
        let RateLimit { per_second, burst } = limit;
        let quota = Quota::per_second(per_second).allow_burst(burst);
        let subjects = RateLimiter::hashmap_with_clock(quota, clock.clone());
        Self { subjects, clock, full: AtomicUsize::new(FEW) }
    }

    /// Takes one request from `subject`'s share, or says how long it has to wait for the next.
    fn admit(&self, subject: &str) -> Result<(), Duration> {
        let checked = self.subjects.check_key(&subject.to_owned());
        self.forget_idle();
        checked.map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// Keeps no more than twice as many subjects as were busy at the last look: whoever has been
    /// silent long enough to have the whole share again is as good as new.
    fn forget_idle(&self) {
        if self.subjects.len() < self.full.load(Ordering::Relaxed) {
            return;
        }
        self.subjects.retain_recent();
        self.subjects.shrink_to_fit();
        self.full.store((2 * self.subjects.len()).max(FEW), Ordering::Relaxed);
    }
}

/// Lets a request through if its caller, known by now, has not asked too often.
pub(crate) async fn limit(
    State(limiter): State<Arc<Limiter>>,
    Extension(identity): Extension<Identity>,
    request: Request,
    next: Next,
) -> Response {
    match limiter.admit(&identity.subject) {
        Ok(()) => next.run(request).await,
        Err(wait) => ApiError::TooManyRequests(whole_seconds(wait)).into_response(),
    }
}

/// Rounded up: who comes back then must not be refused again.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use governor::clock::FakeRelativeClock;

    use super::*;

    fn limiter(per_second: u32, burst: u32) -> (Limiter<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let number = |number| NonZeroU32::new(number).unwrap();
        let limit = RateLimit { per_second: number(per_second), burst: number(burst) };
        (Limiter::with_clock(limit, clock.clone()), clock)
    }

    #[test]
    fn a_burst_is_allowed_and_then_so_many_a_second() {
        let (limiter, clock) = limiter(2, 3);
        assert!((0..3).all(|_| limiter.admit("alice").is_ok()));
        assert_eq!(limiter.admit("alice"), Err(Duration::from_millis(500)));
        assert!(limiter.admit("bob").is_ok(), "everybody has a share of their own");
        clock.advance(Duration::from_millis(500));
        assert!(limiter.admit("alice").is_ok());
        assert!(limiter.admit("alice").is_err());
    }

    #[test]
    fn waiting_is_told_in_whole_seconds_that_suffice() {
        for (millis, seconds) in [(1, 1), (500, 1), (1000, 1), (1001, 2)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
    }

    #[test]
    fn who_is_idle_is_forgotten_and_who_is_busy_is_not() {
        let (limiter, clock) = limiter(1, 1);
        for number in 0..10 * FEW {
            limiter.admit(&format!("passer-by {number}")).unwrap();
            clock.advance(Duration::from_millis(100));
        }
        assert!(limiter.subjects.len() <= FEW, "{}", limiter.subjects.len());
        limiter.admit("alice").unwrap();
        for number in 0..2 * FEW {
            limiter.admit(&format!("crowd {number}")).unwrap();
        }
        assert!(limiter.admit("alice").is_err());
    }
}
