//! The table of what was expected and what was seen, printed row by row as the demo goes.

use std::fmt::Display;

use anyhow::Result;

/// Rows so far.
pub struct Table {
    rows: usize,
    differing: usize,
}

impl Table {
    /// Prints the head.
    pub fn begin() -> Self {
        row("step", "what", "expected", "seen", "ok");
        println!("{}", "─".repeat(126));
        Self { rows: 0, differing: 0 }
    }

    /// A row whose `ok` somebody else has judged. An error is what was seen, and is not ok.
    pub fn add(
        &mut self,
        step: u8,
        what: impl Display,
        expected: &str,
        seen: Result<(bool, String)>,
    ) {
        let (ok, seen) = seen.unwrap_or_else(|error| (false, format!("{error:#}")));
        self.rows += 1;
        self.differing += usize::from(!ok);
        row(&step.to_string(), &what.to_string(), expected, &seen, if ok { "yes" } else { "NO" });
    }

    /// Prints the foot, and returns how many rows differ.
    pub fn end(self) -> usize {
        let Self { rows, differing } = self;
        match differing {
            0 => println!("\nAll {rows} expectations were met."),
            _ => println!("\n{differing} of {rows} expectations were NOT met."),
        }
        differing
    }
}

fn row(step: &str, what: &str, expected: &str, seen: &str, ok: &str) {
    println!("{step:<5}{what:<60}{expected:<18}{seen:<40}{ok}");
}
