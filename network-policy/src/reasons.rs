//! Why cells are waited for: those that give one reason, on one line.

use std::{cmp::Reverse, collections::BTreeMap};

use crate::words;

/// Who is silent for longer is not just between two polls.
pub(crate) const LONG: f64 = 60.0;

/// Errors may name what only one cell has, so there can be as many reasons as cells.
const TOLD: usize = 3;

/// What keeps a cell from confirming, as far as the server knows: what it says itself, or that it says
/// nothing any more.
pub(crate) fn reason(error: Option<&str>, silent_seconds: f64) -> Option<String> {
    let silent = "not heard of for more than a minute";
    match (error, silent_seconds >= LONG) {
        (Some(error), false) => Some(error.to_owned()),
        (Some(error), true) => Some(format!("{error} ({silent})")),
        (None, true) => Some(silent.to_owned()),
        (None, false) => None,
    }
}

/// A line to each reason, with the cells it is given for; that of most cells first.
pub(crate) fn lines<'a>(cells: impl IntoIterator<Item = (&'a str, String)>) -> Vec<String> {
    let mut by_reason = BTreeMap::<String, Vec<&str>>::new();
    for (cell, reason) in cells {
        by_reason.entry(reason).or_default().push(cell);
    }
    let mut groups: Vec<_> = by_reason.into_iter().collect();
    groups.sort_by_key(|(_, cells)| (Reverse(cells.len()), cells[0]));
    let told = groups.iter().take(TOLD).map(|(reason, cells)| {
        format!("{}: {}", words::few(cells, cells.len()), words::shown(reason))
    });
    let mut lines: Vec<String> = told.collect();
    match groups.iter().skip(TOLD).map(|(_, cells)| cells.len()).sum() {
        0 => {}
        more => lines.push(format!("{more} more for other reasons")),
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_with_one_reason_share_a_line() {
        let cells = [
            ("c1", "shadow mode"),
            ("c2", "no such\n table"),
            ("c3", "shadow mode"),
            ("c4", "a"),
            ("c5", "shadow mode"),
            ("c6", "shadow mode"),
            ("c7", "z"),
        ];
        let lines = lines(cells.map(|(cell, reason)| (cell, reason.to_owned())));
        insta::assert_snapshot!(lines.join("\n"), @r"
        c1, c3, c5 and 1 more: shadow mode
        c2: no such� table
        c4: a
        1 more for other reasons
        ");
    }

    #[test]
    fn a_cell_that_fell_silent_is_said_to_have() {
        assert_eq!(reason(None, 59.0), None, "it is on its way");
        assert_eq!(reason(Some("no such table"), 0.0).unwrap(), "no such table");
        assert_eq!(reason(None, 60.0).unwrap(), "not heard of for more than a minute");
        let both = "no such table (not heard of for more than a minute)";
        assert_eq!(reason(Some("no such table"), 60.0).unwrap(), both);
    }
}
