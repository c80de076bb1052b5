//! Cells that have not confirmed a change: how they are named, and what there is to do about them.

use std::{fmt::Write, time::Duration};

use crate::{reasons::LONG, receipts::Receipt, verb::Verb, words};

/// A cell that has not been heard of for so long is forgotten by the server (docs/policy-server.md, "Cells
/// that are gone").
const FORGOTTEN_AFTER: f64 = 24.0 * 60.0 * 60.0;

/// What there is to do about one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It hears of the change, and does not enforce it.
    Watches,
    /// It enforces no policies at all, by its configuration.
    Disabled,
    /// It cannot read which containers it has.
    Blind,
    /// Its name is also another's.
    Shared,
    /// It is not heard of any more.
    Gone,
    /// It is on its way, or ought to be.
    Late,
}

impl Kind {
    /// Agents tell what mode they are in by the first words of what troubles them, and the server that a
    /// name is another's.
    fn of(cell: &Receipt) -> Self {
        let says = |words: &str| cell.error.as_ref().is_some_and(|error| error.starts_with(words));
        if says("two agents say") {
            Self::Shared
        } else if cell.silent_seconds >= LONG {
            Self::Gone
        } else if says("shadow mode") {
            Self::Watches
        } else if says("policies are disabled") {
            Self::Disabled
        } else if says("it is not known which containers") {
            Self::Blind
        } else {
            Self::Late
        }
    }
}

/// Names those of `receipts` that have not confirmed.
pub(crate) fn named(receipts: &[Receipt], took: Duration) -> String {
    let missing: Vec<&Receipt> = missing(receipts).collect();
    let mut text = format!(
        "the change is stored, but {} of {} did not confirm it within {}:",
        missing.len(),
        words::cells(receipts.len()),
        words::took(took)
    );
    for cell in missing {
        let Receipt { cell: name, enforced, confirmed: _, error, silent_seconds } = cell;
        let enforces = match enforced {
            Some(revision) => format!("enforces revision {revision}"),
            None => "has not confirmed anything yet".to_owned(),
        };
        let heard = match *silent_seconds {
            silent if silent < 1.0 => "is in touch with the server".to_owned(),
            silent if silent < LONG => format!("last heard of {silent:.0} s ago"),
            silent => {
                let left = words::long(FORGOTTEN_AFTER - silent);
                format!("last heard of {}, forgotten in {left}", words::ago(silent))
            }
        };
        let _ = write!(text, "\n  {}: {enforces}, {heard}", words::shown(name));
        if let Some(error) = error {
            let _ = write!(text, "\n    and says: {}", words::shown(error));
        }
    }
    text
}

/// What to do about those of `receipts` that have not confirmed what was added or removed.
pub(crate) fn advice(verb: Verb, receipts: &[Receipt]) -> String {
    let any = |kind| missing(receipts).any(|cell| Kind::of(cell) == kind);
    let mut advice = Vec::new();
    if any(Kind::Late) || any(Kind::Gone) {
        advice.push(match verb {
            Verb::Add => {
                "They will enforce it when they next hear from the server; until then they let nothing\n\
                 more through. Is policy-agent running there?"
            }
            Verb::Remove => {
                "Until they hear from the server, they still let the traffic through.\n\
                 Is policy-agent running there?"
            }
        });
    }
    if any(Kind::Gone) {
        advice.push(
            "A cell that is gone for good is waited for until it has been silent for 24 hours; how to end\n\
             that sooner is in docs/policy-server.md, \"Cells that are gone\".",
        );
    }
    if any(Kind::Watches) {
        advice.push(
            "A cell in shadow mode lets through what is not allowed, and confirms nothing, however long it\n\
             is waited for. `policy-agent promote`, run there, makes it enforce.",
        );
    }
    if any(Kind::Disabled) {
        advice.push(
            "A cell where policies are disabled enforces none and confirms nothing until\n\
             disable_container_network_policy is false in the configuration of policy-agent there.",
        );
    }
    if any(Kind::Blind) {
        advice.push(
            "A cell that cannot read which containers it has confirms nothing until it can.\n\
             `policy-agent doctor`, run there, says what is wrong with the file.",
        );
    }
    if any(Kind::Shared) {
        advice.push(
            "Two machines have one cell_id in the configuration of policy-agent: what one of them enforces\n\
             says nothing of the other. Give each its own, and start the agent again.",
        );
    }
    advice.push("The same command again changes nothing and waits anew.");
    advice.join("\n")
}

fn missing(receipts: &[Receipt]) -> impl Iterator<Item = &Receipt> {
    receipts.iter().filter(|cell| !cell.confirmed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(name: &str, silent_seconds: f64, error: Option<&str>) -> Receipt {
        let (cell, error) = (name.to_owned(), error.map(str::to_owned));
        Receipt { cell, enforced: None, confirmed: false, error, silent_seconds }
    }

    #[test]
    fn a_cell_in_shadow_mode_is_not_said_to_enforce_it_soon() {
        let error = "shadow mode: what no policy allows is let through";
        let cells = [cell("cell-1", 0.0, Some(error))];
        insta::assert_snapshot!(advice(Verb::Add, &cells), @r"
        A cell in shadow mode lets through what is not allowed, and confirms nothing, however long it
        is waited for. `policy-agent promote`, run there, makes it enforce.
        The same command again changes nothing and waits anew.
        ");
        assert_eq!(advice(Verb::Remove, &cells), advice(Verb::Add, &cells));
        let beside = [cells[0].clone(), cell("cell-2", 0.0, None)];
        assert!(advice(Verb::Add, &beside).starts_with("They will enforce it"));
    }

    #[test]
    fn what_a_cell_waits_for_is_named() {
        let of = |error| advice(Verb::Add, &[cell("cell-1", 0.0, Some(error))]);
        insta::assert_snapshot!(of("policies are disabled by the configuration of this cell"), @r"
        A cell where policies are disabled enforces none and confirms nothing until
        disable_container_network_policy is false in the configuration of policy-agent there.
        The same command again changes nothing and waits anew.
        ");
        insta::assert_snapshot!(of("it is not known which containers are here: no such file"), @r"
        A cell that cannot read which containers it has confirms nothing until it can.
        `policy-agent doctor`, run there, says what is wrong with the file.
        The same command again changes nothing and waits anew.
        ");
    }

    #[test]
    fn of_a_cell_that_is_gone_it_is_said_when_it_is_forgotten() {
        let cells = [cell("cell-1", 7300.0, None)];
        insta::assert_snapshot!(named(&cells, Duration::from_secs(60)), @r"
        the change is stored, but 1 of 1 cell did not confirm it within 60.0 s:
          cell-1: has not confirmed anything yet, last heard of 2 h ago, forgotten in 21 h
        ");
        insta::assert_snapshot!(advice(Verb::Remove, &cells), @r#"
        Until they hear from the server, they still let the traffic through.
        Is policy-agent running there?
        A cell that is gone for good is waited for until it has been silent for 24 hours; how to end
        that sooner is in docs/policy-server.md, "Cells that are gone".
        The same command again changes nothing and waits anew.
        "#);
    }

    #[test]
    fn a_name_of_two_machines_is_to_be_changed() {
        let cells = [cell("cell-3", 0.0, Some("two agents say they are cell-3"))];
        insta::assert_snapshot!(advice(Verb::Add, &cells), @r"
        Two machines have one cell_id in the configuration of policy-agent: what one of them enforces
        says nothing of the other. Give each its own, and start the agent again.
        The same command again changes nothing and waits anew.
        ");
    }
}
