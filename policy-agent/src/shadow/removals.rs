//! Which removed policies are still let in, as a pure function.

use std::collections::{BTreeMap, BTreeSet};

use policy::AppGuid;

use crate::{
    answer::Answer,
    world::{Allowance, Allowances},
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
    let owners = owners(&now.allowances);
    let is_its_own = |allowance: &Allowance| {
        let mark_is_free =
            owners.get(&allowance.mark).is_none_or(|owner| *owner == &allowance.source);
        let mark_is_same =
            now.allowances.mark_of(&allowance.source).is_none_or(|mark| mark == allowance.mark);
        mark_is_free && mark_is_same
    };
    let concerns_us = |allowance: &Allowance| {
        [&allowance.source, &allowance.destination].into_iter().any(|app| now.apps.contains(app))
    };
    let was_allowed = before.into_iter().flat_map(Allowances::iter);
    let removed = was_allowed.chain(kept).filter(|allowance| {
        concerns_us(allowance) && !now.allowances.allows(allowance) && is_its_own(allowance)
    });
    removed.cloned().collect()
}

/// Whose each mark is.
fn owners(allowances: &Allowances) -> BTreeMap<u16, &AppGuid> {
    let mut owners = BTreeMap::new();
    for allowance in allowances.iter() {
        owners.insert(allowance.mark, &allowance.source);
        if let Some(mark) = allowance.destination_mark {
            owners.insert(mark, &allowance.destination);
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::world::tests::allowance;

    fn answer(apps: &[&str], policies: &[&str]) -> Answer {
        Answer {
            apps: apps.iter().map(|app| app.parse().unwrap()).collect(),
            allowances: Arc::new(allowances(policies)),
            version: None,
        }
    }

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
        let now = answer(&["db"], &["web 1 db tcp 80"]);
        let before = ["web 1 db tcp 80", "web 1 db tcp 81"];
        assert_eq!(let_in(&[], &before, &now), ["web -> db tcp 81"]);
        assert_eq!(let_in(&["web 1 db udp 9"], &before[..1], &now), ["web -> db udp 9"]);
    }

    #[test]
    fn what_is_allowed_again_is_no_removal_any_more() {
        let now = answer(&["db"], &["web 1 db tcp 80"]);
        assert_eq!(let_in(&["web 1 db tcp 80"], &[], &now), [""; 0]);
    }

    #[test]
    fn apps_that_left_the_cell_take_their_removals_along() {
        let now = answer(&["db"], &[]);
        let before = ["web 1 log tcp 80", "web 1 db tcp 80", "db 2 log tcp 80"];
        assert_eq!(let_in(&[], &before, &now), ["web -> db tcp 80", "db -> log tcp 80"]);
    }

    #[test]
    fn a_mark_that_is_somebody_elses_lets_nobody_in() {
        let taken = answer(&["db"], &["new 1 db tcp 22"]);
        assert_eq!(let_in(&["web 1 db tcp 80"], &[], &taken), [""; 0]);
        let changed = answer(&["db"], &["web 3 db tcp 22"]);
        assert_eq!(let_in(&["web 1 db tcp 80"], &[], &changed), [""; 0]);
        let kept = answer(&["db"], &["web 1 db tcp 22"]);
        assert_eq!(let_in(&["web 1 db tcp 80"], &[], &kept), ["web -> db tcp 80"]);
    }
}
