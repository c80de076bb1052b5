//! Waiting for a condition: ask, and ask again, until it holds or a deadline has passed.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long anything in a world may take before it counts as not happening.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks until `look` succeeds; after [`PATIENCE`], an error saying what was waited for and what was
/// seen last.
pub fn until<T>(what: &str, look: impl FnMut() -> Result<T>) -> Result<T> {
    within(PATIENCE, what, look)
}

/// [`until`], with a deadline of its own.
pub fn within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        match look() {
            Ok(seen) => return Ok(seen),
            Err(last) if began.elapsed() >= patience => {
                bail!("{what}: not within {patience:?}; seen last: {last:#}")
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}
