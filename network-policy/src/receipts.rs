//! What the receipts of the cells say about a change. Pure.

use policy::{
    Version,
    wire::status::{CellStatus, Status},
};
use serde::Serialize;

/// How far a change has got.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Standing {
    /// The server's database has begun another life since: the change may not be in it.
    OtherLife,
    /// The server that answered has not taken the change in itself.
    ServerBehind,
    /// The server has just started and may not know of every cell; what the known ones say.
    Incomplete(Vec<Receipt>),
    /// What each cell concerned says.
    Cells(Vec<Receipt>),
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
    /// For how long it has not been heard of.
    #[serde(skip)]
    pub(crate) silent_seconds: f64,
}

impl Standing {
    pub(crate) fn of(change: &Version, status: &Status) -> Self {
        if status.life != change.life.as_str() {
            return Self::OtherLife;
        }
        if status.revision < change.revision.0 {
            return Self::ServerBehind;
        }
        let receipts = status.cells.iter().map(|cell| Receipt::of(change, cell)).collect();
        if status.complete { Self::Cells(receipts) } else { Self::Incomplete(receipts) }
    }

    /// Whether there is nobody left to wait for.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self, Self::Cells(receipts) if receipts.iter().all(|receipt| receipt.confirmed))
    }

    pub(crate) fn receipts(&self) -> &[Receipt] {
        match self {
            Self::Incomplete(receipts) | Self::Cells(receipts) => receipts,
            Self::OtherLife | Self::ServerBehind => &[],
        }
    }

    pub(crate) fn into_receipts(self) -> Vec<Receipt> {
        match self {
            Self::Incomplete(receipts) | Self::Cells(receipts) => receipts,
            Self::OtherLife | Self::ServerBehind => vec![],
        }
    }
}

impl Receipt {
    fn of(change: &Version, status: &CellStatus) -> Self {
        let CellStatus { cell, enforced, wanted, silent_seconds, apps: _ } = status;
        // A cell all of whose policies are older than the change has nothing newer to enforce: so it
        // is after adding a policy that was there already.
        let needed = change.revision.0.min(*wanted);
        Self {
            cell: cell.clone(),
            enforced: *enforced,
            confirmed: enforced.is_some_and(|enforced| enforced >= needed),
            silent_seconds: *silent_seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn change(revision: u64) -> Version {
        format!("life.{revision}").parse().unwrap()
    }

    fn status(life: &str, revision: u64, enforced: &[Option<u64>]) -> Status {
        let cells = enforced.iter().enumerate().map(|(index, enforced)| CellStatus {
            cell: format!("cell-{index}"),
            enforced: *enforced,
            wanted: revision,
            silent_seconds: 0.0,
            apps: 1,
        });
        let (life, complete) = (life.to_owned(), true);
        Status { life, revision, complete, cells: cells.collect() }
    }

    #[test]
    fn a_change_is_in_force_where_the_enforced_revision_has_reached_it() {
        let standing = Standing::of(&change(7), &status("life", 9, &[Some(6), Some(7), None]));
        let confirmed: Vec<bool> =
            standing.receipts().iter().map(|receipt| receipt.confirmed).collect();
        assert_eq!(confirmed, [false, true, false]);
        assert!(!standing.is_settled());
        assert!(Standing::of(&change(7), &status("life", 9, &[Some(7), Some(8)])).is_settled());
        assert!(Standing::of(&change(7), &status("life", 7, &[])).is_settled(), "nobody to ask");
    }

    #[test]
    fn a_cell_that_has_nothing_newer_to_enforce_is_not_waited_for() {
        let mut status = status("life", 9, &[Some(5)]);
        status.cells[0].wanted = 5;
        assert!(Standing::of(&change(9), &status).is_settled());
        status.cells[0].enforced = Some(4);
        assert!(!Standing::of(&change(9), &status).is_settled());
    }

    #[test]
    fn a_server_that_does_not_know_all_cells_yet_proves_nothing() {
        let mut status = status("life", 9, &[Some(9)]);
        status.complete = false;
        assert!(!Standing::of(&change(7), &status).is_settled());
    }

    #[test]
    fn receipts_of_another_life_or_before_the_change_prove_nothing() {
        let other = Standing::of(&change(7), &status("other", 9, &[Some(9)]));
        assert_eq!(other, Standing::OtherLife);
        let behind = Standing::of(&change(7), &status("life", 6, &[]));
        assert_eq!(behind, Standing::ServerBehind);
        assert!(!other.is_settled() && !behind.is_settled());
    }

    proptest! {
        #[test]
        fn settled_means_that_no_cell_enforces_less(
            at in 1u64..9, revision in 0u64..9, enforced in vec(proptest::option::of(0u64..9), 0..4),
        ) {
            let standing = Standing::of(&change(at), &status("life", revision, &enforced));
            let everywhere = enforced.iter().all(|enforced| enforced.is_some_and(|e| e >= at));
            prop_assert_eq!(standing.is_settled(), revision >= at && everywhere);
        }
    }
}
