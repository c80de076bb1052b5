//! What cells said last (design §2.3).

use std::{collections::BTreeMap, time::Duration};

use super::tags;
use crate::{
    StoredGroupReceipt, StoredReceipt,
    row::{GroupReceiptRow, ReceiptRow},
};

/// How long a cell's name may be, in characters, whatever the database.
const LONGEST_NAME: usize = 255;

/// The last word of each cell, ordered by cell.
pub(super) fn last_words(receipts: &[StoredReceipt]) -> Vec<ReceiptRow> {
    let last = last(receipts.iter().map(|receipt| (receipt.cell.as_str(), receipt.age, receipt)));
    last.map(ReceiptRow::from).collect()
}

/// The same of what they say of security groups.
pub(super) fn last_words_of_groups(receipts: &[StoredGroupReceipt]) -> Vec<GroupReceiptRow> {
    let last = last(receipts.iter().map(|receipt| (receipt.cell.as_str(), receipt.age, receipt)));
    last.map(GroupReceiptRow::from).collect()
}

fn last<'a, T>(words: impl Iterator<Item = (&'a str, Duration, T)>) -> impl Iterator<Item = T> {
    let mut last: BTreeMap<&str, (Duration, T)> = BTreeMap::new();
    for (cell, age, word) in words.filter(|(cell, ..)| is_name(cell)) {
        if last.get(cell).is_none_or(|(known, _)| age <= *known) {
            last.insert(cell, (age, word));
        }
    }
    last.into_values().map(|(_, word)| word)
}

fn is_name(cell: &str) -> bool {
    tags::can_be_kept(cell) && cell.chars().count() <= LONGEST_NAME
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(cell: &str, backend: &str, seconds: u64) -> StoredReceipt {
        StoredReceipt {
            cell: cell.to_owned(),
            enforced: None,
            apps: None,
            backend: Some(backend.to_owned()),
            error: None,
            agent: None,
            age: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn of_several_words_of_a_cell_the_last_one_counts() {
        let said = [word("c2", "one", 3), word("c1", "old", 9), word("c1", "new", 2)];
        let rows = last_words(&said);
        let rows: Vec<_> =
            rows.iter().map(|row| (row.cell.as_str(), row.backend.as_deref())).collect();
        assert_eq!(rows, [("c1", Some("new")), ("c2", Some("one"))]);
    }

    #[test]
    fn names_that_no_cell_has_are_passed_over() {
        let (long, longest) = ("ü".repeat(256), "ü".repeat(255));
        let said = [word(&long, "a", 1), word("c\0", "a", 1), word(&longest, "a", 1)];
        assert_eq!(
            last_words(&said).into_iter().map(|row| row.cell).collect::<Vec<_>>(),
            [longest]
        );
    }
}
