//! Which removed policies are still let in, as a pure function.

use std::collections::BTreeSet;

use crate::{
    allowances::{Allowance, Allowances, Change},
    answer::Answer,
};

/// What was allowed before, or let in since, is not allowed by `now`, and still concerns this cell.
///
/// What has a mark that is somebody else's by now, or not its source's any more, is not let in: packets
/// are told apart by their marks only.
pub(super) fn still_let_in(
    kept: &BTreeSet<Allowance>,
    before: Option<&Allowances>,
    now: &Answer,
) -> BTreeSet<Allowance> {
    let is_its_own = |allowance: &Allowance| {
        let owner = now.allowances.owner_of(allowance.mark.into());
        let mark_is_free = owner.is_none_or(|owner| *owner == allowance.source);
        let mark_is_same =
            now.allowances.mark_of(&allowance.source).is_none_or(|mark| mark == allowance.mark);
        mark_is_free && mark_is_same
    };
    let concerns_us = |allowance: &Allowance| {
        [&allowance.source, &allowance.destination].into_iter().any(|app| now.apps.contains(app))
    };
    let changes = before.into_iter().flat_map(|before| before.changes(&now.allowances));
    let gone = changes.filter_map(|change| match change {
        Change::Gone(allowance) => Some(allowance),
        Change::New(_) => None,
    });
    let removed = gone.chain(kept).filter(|allowance| {
        concerns_us(allowance) && !now.allowances.allows(allowance) && is_its_own(allowance)
    });
    removed.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::tests::allowance;

    fn allowances(policies: &[&str]) -> Allowances {
        policies.iter().map(|text| allowance(text)).collect()
    }

    /// What is still let in, of `before` and what was `kept`.
    fn let_in(kept: &[&str], before: &[&str], now: &Answer) -> Vec<String> {
        let kept = kept.iter().map(|text| allowance(text)).collect();
        let removed = still_let_in(&kept, Some(&allowances(before)), now);
        removed.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_was_allowed_and_is_not_is_let_in() {
        let now = Answer::allowing(&["db"], &["web 1 db tcp 80"]);
        let before = ["web 1 db tcp 80", "web 1 db tcp 81"];
        assert_eq!(let_in(&[], &before, &now), ["web -> db tcp 81"]);
        assert_eq!(let_in(&["web 1 db udp 9"], &before[..1], &now), ["web -> db udp 9"]);
    }

    #[test]
    fn what_is_allowed_again_is_no_removal_any_more() {
        let now = Answer::allowing(&["db"], &["web 1 db tcp 80"]);
        assert_eq!(let_in(&["web 1 db tcp 80"], &[], &now), [""; 0]);
    }

    #[test]
    fn apps_that_left_the_cell_take_their_removals_along() {
        let now = Answer::allowing(&["db"], &[]);
        let before = ["web 1 log tcp 80", "web 1 db tcp 80", "db 2 log tcp 80"];
        assert_eq!(let_in(&[], &before, &now), ["web -> db tcp 80", "db -> log tcp 80"]);
    }

    #[test]
    fn a_mark_that_is_somebody_elses_lets_nobody_in() {
        let taken = Answer::allowing(&["db"], &["new 1 db tcp 22"]);
        assert_eq!(let_in(&["web 1 db tcp 80"], &[], &taken), [""; 0]);
        let changed = Answer::allowing(&["db"], &["web 3 db tcp 22"]);
        assert_eq!(let_in(&["web 1 db tcp 80"], &[], &changed), [""; 0]);
        let kept = Answer::allowing(&["db"], &["web 1 db tcp 22"]);
        assert_eq!(let_in(&["web 1 db tcp 80"], &[], &kept), ["web -> db tcp 80"]);
    }
}
