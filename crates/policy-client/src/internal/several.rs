//! A service at several addresses, any of which will do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::Url;
use tokio::time::sleep;

use super::ClientError;

/// The longest pause before the next address is tried: whoever lost the same server comes as well.
const HANDOVER: Duration = Duration::from_millis(250);

/// The addresses, and which of them answered last. Clones remember together.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    bases: Arc<[Url]>,
    last: Arc<AtomicUsize>,
}

impl Addresses {
    /// Any of `bases`, beginning anywhere, so that they are asked about equally often.
    pub fn any_of(bases: Vec<Url>) -> Self {
        let last = Arc::new(AtomicUsize::new(fastrand::usize(..bases.len().max(1))));
        Self { bases: bases.into(), last }
    }

    /// Which answered last, counted from 0.
    #[cfg(test)]
    pub fn last(&self) -> usize {
        self.last.load(Ordering::Relaxed)
    }

    /// `ask`s for `path`, which begins with a slash, at the address that answered last; where nobody
    /// can answer, at the others, each once. The request must be one that may be made twice.
    pub async fn ask<T, Asked>(
        &self,
        path: &str,
        ask: impl Fn(Url) -> Asked,
    ) -> Result<T, ClientError>
    where
        Asked: Future<Output = Result<T, ClientError>>,
    {
        let count = self.bases.len();
        let first = self.last.load(Ordering::Relaxed);
        let mut tried = 0;
        loop {
            let at = (first + tried) % count;
            tried += 1;
            match ask(endpoint(&self.bases[at], path)).await {
                Err(error) if is_for_another(&error) && tried < count => {
                    sleep(HANDOVER.mul_f64(fastrand::f64())).await;
                }
                Err(error) if is_for_another(&error) => return Err(error),
                answer => {
                    self.last.store(at, Ordering::Relaxed);
                    return answer;
                }
            }
        }
    }
}

/// Whether another server may have a better answer: this one is away, or in trouble.
fn is_for_another(error: &ClientError) -> bool {
    match error {
        ClientError::Refused { status, .. } => *status >= 500,
        error => error.is_unreachable(),
    }
}

fn endpoint(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url
}
