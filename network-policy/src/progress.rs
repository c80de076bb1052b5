//! How many cells have confirmed, on standard error, where a person is looking.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{receipts::Receipt, words};

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

    pub(crate) fn show(&self, receipts: &[Receipt]) {
        let missing: Vec<&Receipt> = receipts.iter().filter(|cell| !cell.confirmed).collect();
        if missing.is_empty() {
            return;
        }
        self.0.set_message(format!("waiting for {}", names(&missing)));
        self.0.set_position((receipts.len() - missing.len()) as u64);
        if self.0.length().is_none() {
            self.0.enable_steady_tick(Duration::from_millis(100));
        }
        self.0.set_length(receipts.len() as u64);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn names(missing: &[&Receipt]) -> String {
    let named: Vec<String> =
        missing.iter().take(NAMED).map(|cell| words::shown(&cell.cell)).collect();
    match missing.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_can_be_drawn_and_names_a_few() {
        let receipts: Vec<Receipt> = (0..5)
            .map(|index| Receipt {
                cell: format!("cell-{index}"),
                enforced: None,
                confirmed: false,
                silent_seconds: 0.0,
            })
            .collect();
        Progress::start().show(&receipts);
        let missing: Vec<&Receipt> = receipts.iter().collect();
        assert_eq!(names(&missing), "cell-0, cell-1, cell-2 and 2 more");
        assert_eq!(names(&missing[..2]), "cell-0, cell-1");
    }
}
