//! How many cells have confirmed, on standard error, where a person is looking.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{receipts::Tally, words};

/// How many stragglers are named before the rest is a number.
const NAMED: usize = 3;

/// A bar that appears when there is somebody to wait for, hides where standard error is no terminal,
/// and is gone when dropped.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn start() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(
            "{spinner} {pos}/{len} cells enforce it [{bar:24}] {elapsed} {wide_msg}",
        );
        bar.set_style(style.expect("the template is a constant that a test has drawn"));
        Self(bar)
    }

    pub(crate) fn show(&self, tally: &Tally) {
        if tally.missing() == 0 {
            return;
        }
        self.0.set_message(format!("waiting for {}", names(tally)));
        self.0.set_position(tally.enforced as u64);
        if self.0.length().is_none() {
            self.0.enable_steady_tick(Duration::from_millis(100));
        }
        self.0.set_length(tally.relevant as u64);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Who is waited for; a few by name.
pub(crate) fn names(tally: &Tally) -> String {
    let named: Vec<String> =
        tally.waiting.iter().take(NAMED).map(|cell| words::shown(cell)).collect();
    match tally.missing().saturating_sub(named.len()) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_can_be_drawn_and_names_a_few() {
        let tally = |missing: usize| Tally {
            relevant: 9,
            enforced: 9 - missing,
            waiting: (0..missing.min(4)).map(|index| format!("cell-{index}")).collect(),
        };
        Progress::start().show(&tally(5));
        assert_eq!(names(&tally(5)), "cell-0, cell-1, cell-2 and 2 more");
        assert_eq!(names(&tally(2)), "cell-0, cell-1");
        assert_eq!(names(&tally(0)), "");
    }
}
