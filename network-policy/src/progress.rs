//! How far a wait has got, on standard error: a bar where a person is looking, and sentences for everybody
//! when it takes long.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    explanation::Explanation,
    receipts::{Standing, Tally},
    wait::{Last, Look},
    words,
};

/// What is over sooner than this is not worth a word.
const BRIEF: Duration = Duration::from_millis(500);

const COUNT: &str = "{spinner} {pos}/{len} cells enforce it [{bar:24}] {elapsed} {wide_msg}";
const NO_COUNT: &str = "{spinner} {elapsed} {wide_msg}";

/// A bar that appears when there is something to wait for, hides where standard error is no terminal,
/// and is gone when dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    began: Instant,
    explanation: Explanation,
}

impl Progress {
    pub(crate) fn start() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        Self { bar, began: Instant::now(), explanation: Explanation::default() }
    }

    pub(crate) fn show(&mut self, look: Look, seen: &Last) {
        if look == Look::Explaining
            && let Some(text) = self.explanation.news(seen)
        {
            // Who has closed standard error does not want to know.
            self.bar.suspend(|| drop(writeln!(io::stderr(), "{text}")));
        }
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
        let names = words::few(&tally.waiting, tally.missing());
        self.draw(COUNT, format!("waiting for {names}"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_can_be_drawn() {
        let waiting = vec!["cell-1".to_owned()];
        let tally = Tally { relevant: 9, enforced: 4, waiting };
        let mut progress = Progress::start();
        progress.show(Look::Passing, &Last::Standing(Standing::Counted(tally)));
        progress.draw(NO_COUNT, String::new());
    }
}
