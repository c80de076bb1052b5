//! What the receipts of the cells say about a change. Pure.

use policy::{
    Policy, Version,
    wire::{
        status::{CellStatus, PoliciesStatus, PolicyStatus, Status},
        v1::PolicyBody,
    },
};
use serde::Serialize;

/// How far a change has got.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Standing {
    /// The server's database has begun another life since: the change may not be in it.
    OtherLife,
    /// The server that answered has not taken the change in itself.
    ServerBehind,
    /// Some cells do not enforce it, by the server's count.
    Counted(Tally),
    /// The server has just started and may not know of every cell; what the known ones say.
    Incomplete(Vec<Receipt>),
    /// What each cell concerned says.
    Cells(Vec<Receipt>),
}

/// Cells, counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tally {
    /// How many are concerned.
    pub(crate) relevant: usize,
    /// How many of them enforce it.
    pub(crate) enforced: usize,
    /// The names of the others, or of some of them.
    pub(crate) waiting: Vec<String>,
}

/// One cell's word.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Receipt {
    /// What the cell calls itself.
    pub(crate) cell: String,
    /// The revision it enforces of what it asks for.
    pub(crate) enforced: Option<u64>,
    /// Whether that includes the change.
    pub(crate) confirmed: bool,
    /// Why the cell cannot enforce what it should, if it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// For how long it has not been heard of.
    #[serde(skip)]
    pub(crate) silent_seconds: f64,
}

impl Standing {
    /// What every cell says about the change with revision `needed`, or an earlier one that is as good.
    pub(crate) fn of(change: &Version, needed: u64, status: &Status) -> Self {
        if let Some(useless) = Self::useless(change, &status.life, status.revision) {
            return useless;
        }
        let receipts = status.cells.iter().map(|cell| Receipt::of(needed, cell)).collect();
        if status.complete { Self::Cells(receipts) } else { Self::Incomplete(receipts) }
    }

    /// Why an answer says nothing about the change, if it does not.
    pub(crate) fn useless(change: &Version, life: &str, revision: u64) -> Option<Self> {
        if life != change.life.as_str() {
            return Some(Self::OtherLife);
        }
        (revision < change.revision.0).then_some(Self::ServerBehind)
    }

    /// Whether there is nobody left to wait for.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self, Self::Cells(receipts) if receipts.iter().all(|receipt| receipt.confirmed))
    }

    pub(crate) fn receipts(&self) -> &[Receipt] {
        match self {
            Self::Incomplete(receipts) | Self::Cells(receipts) => receipts,
            Self::OtherLife | Self::ServerBehind | Self::Counted(_) => &[],
        }
    }

    pub(crate) fn into_receipts(self) -> Vec<Receipt> {
        match self {
            Self::Incomplete(receipts) | Self::Cells(receipts) => receipts,
            Self::OtherLife | Self::ServerBehind | Self::Counted(_) => vec![],
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        match self {
            Self::Counted(tally) => tally.clone(),
            other => Tally::of_receipts(other.receipts()),
        }
    }
}

impl Tally {
    pub(crate) fn of(status: &PolicyStatus) -> Self {
        let PolicyStatus { relevant, enforced, waiting, .. } = status;
        Self { relevant: *relevant, enforced: *enforced, waiting: waiting.clone() }
    }

    fn of_receipts(receipts: &[Receipt]) -> Self {
        let missing = receipts.iter().filter(|receipt| !receipt.confirmed);
        let waiting: Vec<_> = missing.map(|receipt| receipt.cell.clone()).collect();
        Self { relevant: receipts.len(), enforced: receipts.len() - waiting.len(), waiting }
    }

    /// How many do not enforce it.
    pub(crate) fn missing(&self) -> usize {
        self.relevant.saturating_sub(self.enforced)
    }
}

impl Receipt {
    fn of(needed: u64, status: &CellStatus) -> Self {
        let CellStatus { cell, enforced, wanted, silent_seconds, error, .. } = status;
        // A cell all of whose policies are older than the change has nothing newer to enforce.
        let needed = needed.min(*wanted);
        Self {
            cell: cell.clone(),
            enforced: *enforced,
            confirmed: enforced.is_some_and(|enforced| enforced >= needed),
            error: error.clone(),
            silent_seconds: *silent_seconds,
        }
    }
}

/// What `status` says of `policy`, if it is there.
pub(crate) fn find<'a>(policy: &Policy, status: &'a PoliciesStatus) -> Option<&'a PolicyStatus> {
    let PolicyBody { source, destination } = PolicyBody::of(policy);
    status.policies.iter().find(|told| told.source == source && told.destination == destination)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn change(revision: u64) -> Version {
        format!("life.{revision}").parse().unwrap()
    }

    fn of(revision: u64, status: &Status) -> Standing {
        Standing::of(&change(revision), revision, status)
    }

    fn status(life: &str, revision: u64, enforced: &[Option<u64>]) -> Status {
        let cells = enforced.iter().enumerate().map(|(index, enforced)| CellStatus {
            cell: format!("cell-{index}"),
            enforced: *enforced,
            wanted: revision,
            silent_seconds: 0.0,
            apps: 1,
            ..CellStatus::default()
        });
        let (life, complete) = (life.to_owned(), true);
        Status { life, revision, complete, cells: cells.collect() }
    }

    #[test]
    fn a_change_is_in_force_where_the_enforced_revision_has_reached_it() {
        let standing = of(7, &status("life", 9, &[Some(6), Some(7), None]));
        let confirmed: Vec<bool> =
            standing.receipts().iter().map(|receipt| receipt.confirmed).collect();
        assert_eq!(confirmed, [false, true, false]);
        assert!(!standing.is_settled());
        assert!(of(7, &status("life", 9, &[Some(7), Some(8)])).is_settled());
        assert!(of(7, &status("life", 7, &[])).is_settled(), "nobody to ask");
    }

    #[test]
    fn a_cell_that_has_nothing_newer_to_enforce_is_not_waited_for() {
        let mut status = status("life", 9, &[Some(5)]);
        status.cells[0].wanted = 5;
        assert!(of(9, &status).is_settled());
        status.cells[0].enforced = Some(4);
        assert!(!of(9, &status).is_settled());
    }

    #[test]
    fn a_server_that_does_not_know_all_cells_yet_proves_nothing() {
        let mut status = status("life", 9, &[Some(9)]);
        status.complete = false;
        assert!(!of(7, &status).is_settled());
    }

    #[test]
    fn receipts_of_another_life_or_before_the_change_prove_nothing() {
        let other = of(7, &status("other", 9, &[Some(9)]));
        assert_eq!(other, Standing::OtherLife);
        let behind = of(7, &status("life", 6, &[]));
        assert_eq!(behind, Standing::ServerBehind);
        assert!(!other.is_settled() && !behind.is_settled());
    }

    #[test]
    fn a_policy_that_was_there_before_needs_no_more_than_what_it_came_with() {
        let status = status("life", 9, &[Some(5)]);
        assert!(Standing::of(&change(9), 5, &status).is_settled());
        assert!(!Standing::of(&change(9), 6, &status).is_settled());
    }

    #[test]
    fn a_policy_is_found_by_all_it_consists_of() {
        let policy = |ports: &str| Policy {
            source: "web".parse().unwrap(),
            destination: "db".parse().unwrap(),
            protocol: policy::Protocol::Tcp,
            ports: ports.parse().unwrap(),
        };
        let told = |ports| {
            let PolicyBody { source, destination } = PolicyBody::of(&policy(ports));
            PolicyStatus { source, destination, relevant: 1, ..PolicyStatus::default() }
        };
        let policies = vec![told("1-2"), told("1")];
        let status = PoliciesStatus { policies, ..PoliciesStatus::default() };
        assert_eq!(find(&policy("1"), &status), Some(&status.policies[1]));
        assert_eq!(find(&policy("2"), &status), None);
    }

    proptest! {
        #[test]
        fn settled_means_that_no_cell_enforces_less(
            at in 1u64..9, revision in 0u64..9, enforced in vec(proptest::option::of(0u64..9), 0..4),
        ) {
            let standing = of(at, &status("life", revision, &enforced));
            let everywhere = enforced.iter().all(|enforced| enforced.is_some_and(|e| e >= at));
            prop_assert_eq!(standing.is_settled(), revision >= at && everywhere);
        }
    }
}
