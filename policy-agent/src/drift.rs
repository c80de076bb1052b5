//! What somebody else has changed of our rules lately, for the log and `/status`.

use std::collections::{BTreeSet, VecDeque};

use netfilter::{Drift, Firewall, KernelError, Rendered};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::desired;

/// How many changes are remembered.
const MOST: usize = 20;
/// How many of one repair are told in the log.
const TOLD: usize = 5;

/// The last changes, the newest at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct History(VecDeque<Change>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Change {
    /// When it was put right.
    at: String,
    /// The chain or set.
    chain: String,
    what: String,
    /// Programs that have written rules since the repair before, if the kernel tells.
    by: BTreeSet<String>,
}

/// How the kernel differs from `rules`, which it held.
pub(crate) fn found(rules: &Rendered, firewall: &mut Firewall) -> Result<Vec<Drift>, KernelError> {
    Ok(Drift::between(rules, firewall.observed()?, &desired::scope()))
}

/// Keeps what was `found` for the pass that succeeds to tell; of passes that fail on and on, no more than is
/// remembered.
pub(crate) fn put_off(untold: &mut Vec<Drift>, found: Vec<Drift>) {
    untold.extend(found);
    untold.truncate(MOST);
}

/// The first changes of a repair, as one sentence.
pub(crate) fn told(found: &[Drift]) -> String {
    let first = found.iter().take(TOLD).map(|Drift { chain, what }| format!("{chain}: {what}"));
    let mut told: Vec<_> = first.collect();
    if found.len() > TOLD {
        told.push(format!("{} more chains or sets", found.len() - TOLD));
    }
    told.join("; ")
}

/// Names for a line of the log.
pub(crate) fn listed(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

impl History {
    /// Remembers what was found and put right now.
    pub fn note(&mut self, found: &[Drift], by: &BTreeSet<String>, now: OffsetDateTime) {
        let at = now.format(&Rfc3339).unwrap_or_default();
        self.0.extend(found.iter().take(MOST).map(|Drift { chain, what }| Change {
            at: at.clone(),
            chain: chain.clone(),
            what: what.clone(),
            by: by.clone(),
        }));
        self.0.drain(..self.0.len().saturating_sub(MOST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drift(number: usize) -> Drift {
        Drift { chain: format!("vpa--{number}"), what: "the chain was gone".to_owned() }
    }

    #[test]
    fn the_last_changes_are_remembered_and_no_more() {
        let mut history = History::default();
        let by = ["nft (7)".to_owned()].into();
        for number in 0..30 {
            history.note(&[drift(number)], &by, OffsetDateTime::UNIX_EPOCH);
        }
        assert_eq!(history.0.len(), MOST);
        assert_eq!(
            serde_json::to_value(&history).unwrap()[MOST - 1],
            serde_json::json!({
                "at": "1970-01-01T00:00:00Z", "chain": "vpa--29", "what": "the chain was gone",
                "by": ["nft (7)"],
            })
        );
        let many: Vec<_> = (0..100).map(drift).collect();
        history.note(&many, &by, OffsetDateTime::UNIX_EPOCH);
        assert_eq!(history.0.len(), MOST);
    }

    #[test]
    fn the_log_is_told_of_the_first_and_how_many_more() {
        assert_eq!(told(&[drift(1)]), "vpa--1: the chain was gone");
        let all: Vec<_> = (0..7).map(drift).collect();
        assert!(told(&all).ends_with("; 2 more chains or sets"), "{}", told(&all));
    }
}
