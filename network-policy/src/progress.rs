//! How many cells have confirmed, on standard error, where a person is looking.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    receipts::{Standing, Tally},
    wait::Last,
    words,
};

/// How many stragglers are named before the rest is a number.
const NAMED: usize = 3;

/// What is over sooner than this is not worth a word.
const BRIEF: Duration = Duration::from_millis(500);

const COUNT: &str = "{spinner} {pos}/{len} cells enforce it [{bar:24}] {elapsed} {wide_msg}";
const NO_COUNT: &str = "{spinner} {elapsed} {wide_msg}";

/// A bar that appears when there is something to wait for, hides where standard error is no terminal,
/// and is gone when dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    began: Instant,
}

impl Progress {
    pub(crate) fn start() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        Self { bar, began: Instant::now() }
    }

    pub(crate) fn show(&self, seen: &Last) {
        match seen {
            Last::Standing(standing) => {
                let tally = standing.tally();
                match standing {
                    _ if tally.missing() > 0 => self.count(&tally),
                    Standing::ServerBehind => self.say("waiting for the server to take it in"),
                    Standing::Incomplete(_) => {
                        self.say("waiting until the server has heard of every cell");
                    }
                    Standing::OtherLife | Standing::Counted(_) | Standing::Cells(_) => {}
                }
            }
            Last::Silence(_) => self.say("the server does not answer; trying again"),
            Last::Confirmed(_) => {}
        }
    }

    fn count(&self, tally: &Tally) {
        self.bar.set_length(tally.relevant as u64);
        self.bar.set_position(tally.enforced as u64);
        self.draw(COUNT, format!("waiting for {}", names(tally)));
    }

    fn say(&self, what: &'static str) {
        if self.began.elapsed() > BRIEF {
            self.draw(NO_COUNT, what.to_owned());
        }
    }

    fn draw(&self, template: &str, message: String) {
        let style = ProgressStyle::with_template(template);
        self.bar.set_style(style.expect("the template is a constant that a test has drawn"));
        self.bar.set_message(message);
        self.bar.enable_steady_tick(Duration::from_millis(100));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
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
        let progress = Progress::start();
        progress.show(&Last::Standing(Standing::Counted(tally(5))));
        progress.draw(NO_COUNT, String::new());
        assert_eq!(names(&tally(5)), "cell-0, cell-1, cell-2 and 2 more");
        assert_eq!(names(&tally(2)), "cell-0, cell-1");
        assert_eq!(names(&tally(0)), "");
    }
}
