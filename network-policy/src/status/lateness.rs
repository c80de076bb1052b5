//! Why policies are waited for: a second question, asked only if somebody is late.

use std::collections::BTreeSet;

use policy::{
    AppGuid,
    wire::status::{CellStatus, PolicyStatus, Status},
};
use policy_client::external::Client;

use crate::{
    failure::in_short,
    reasons::{self, reason},
    receipts::Tally,
};

/// An address with more apps than this is too long for some proxies. All cells are asked about then, which
/// are hardly more than those that run one of so many apps.
const MOST_APPS: usize = 50;

/// A line to each reason that cells give which one of `policies` waits for.
pub(super) fn reasons(client: &Client, policies: &[PolicyStatus]) -> Vec<String> {
    let late: Vec<_> = policies.iter().filter(|policy| Tally::of(policy).missing() > 0).collect();
    if late.is_empty() {
        return vec![];
    }
    match client.status(apps(&late).as_ref()) {
        Ok(status) => given(&late, &status),
        // What was asked for has been answered.
        Err(error) => vec![format!("Why is not known: {}", in_short(&error))],
    }
}

/// The apps of these policies, unless they are too many.
fn apps(late: &[&PolicyStatus]) -> Option<BTreeSet<AppGuid>> {
    let ends = late.iter().flat_map(|policy| [&policy.source.id, &policy.destination.id]);
    let apps: BTreeSet<AppGuid> = ends.map(|id| id.parse().ok()).collect::<Option<_>>()?;
    (apps.len() <= MOST_APPS).then_some(apps)
}

fn given(late: &[&PolicyStatus], status: &Status) -> Vec<String> {
    let named: BTreeSet<&str> =
        late.iter().flat_map(|policy| &policy.waiting).map(String::as_str).collect();
    // The server names a few to each policy and counts the others.
    let all_named = late.iter().all(|policy| policy.waiting.len() >= Tally::of(policy).missing());
    let is_late = |cell: &CellStatus| {
        let behind = cell.enforced.is_none_or(|enforced| enforced < cell.wanted);
        named.contains(cell.cell.as_str()) || (!all_named && behind)
    };
    let late = status.cells.iter().filter(|cell| is_late(cell));
    reasons::lines(late.filter_map(|cell| {
        let reason = reason(cell.error.as_deref(), cell.silent_seconds)?;
        Some((cell.cell.as_str(), reason))
    }))
}

#[cfg(test)]
mod tests {
    use policy::wire::{Source, v1::Destination};

    use super::*;

    fn policy(source: &str, missing: usize, waiting: &[&str]) -> PolicyStatus {
        PolicyStatus {
            source: Source { id: source.to_owned(), ..Source::default() },
            destination: Destination { id: "db".to_owned(), ..Destination::default() },
            relevant: missing,
            waiting: waiting.iter().map(|&cell| cell.to_owned()).collect(),
            ..PolicyStatus::default()
        }
    }

    fn cell(name: &str, enforced: Option<u64>, error: Option<&str>) -> CellStatus {
        let (cell, error) = (name.to_owned(), error.map(str::to_owned));
        CellStatus { cell, enforced, wanted: 7, error, ..CellStatus::default() }
    }

    #[test]
    fn only_those_who_are_waited_for_are_asked_why() {
        let cells = vec![
            cell("c1", None, Some("no such table")),
            cell("c2", Some(6), None),
            cell("c3", Some(6), Some("another policy's trouble")),
            cell("c4", Some(7), Some("none any more")),
        ];
        let status = Status { cells, ..Status::default() };
        let told = given(&[&policy("web", 2, &["c1", "c2"])], &status);
        assert_eq!(told, ["c1: no such table"]);
        let told = given(&[&policy("web", 3, &["c1", "c2"])], &status);
        assert_eq!(told, ["c1: no such table", "c3: another policy's trouble"], "one is unnamed");
    }

    #[test]
    fn the_apps_of_late_policies_are_asked_about_or_else_all_cells() {
        let policies: Vec<_> = (0..50).map(|app| policy(&format!("{app}"), 1, &[])).collect();
        let late: Vec<_> = policies.iter().collect();
        let all = apps(&late[..49]).unwrap();
        assert!(all.len() == 50 && all.contains(&"db".parse().unwrap()));
        assert_eq!(apps(&late), None);
    }
}
