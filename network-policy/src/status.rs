//! `status`: how far policies have got, or how cells fare.

mod lateness;

use std::{collections::BTreeSet, io::Write};

use policy::{
    AppGuid,
    wire::{
        status::{CellStatus, GroupsStatus, PoliciesStatus, PolicyStatus, Status},
        v1::{Destination, Ports},
    },
};
use policy_client::external::{Client, Filter};
use serde::Serialize;

use crate::{
    args::StatusArgs,
    failure::Failure,
    receipts::Tally,
    table::table,
    words::{self, ago, shown},
};

pub(crate) fn run(
    client: &Client,
    which: StatusArgs,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let StatusArgs { apps, cells } = which;
    let apps: Option<BTreeSet<AppGuid>> = (!apps.is_empty()).then(|| apps.into_iter().collect());
    let text = if cells {
        let status = client.status(apps.as_ref()).map_err(Failure::Client)?;
        if json { as_json(&status) } else { of_cells(&status) }
    } else {
        let filter = apps.map_or(Filter::All, Filter::Concerning);
        let status = client.policies_status(&filter).map_err(Failure::Client)?;
        if json {
            as_json(&status)
        } else {
            let why = lateness::reasons(client, &status.policies);
            of_policies(status, &why)
        }
    };
    writeln!(out, "{text}").map_err(Failure::Output)
}

/// The answer as the server writes it.
fn as_json<T: Serialize>(status: &T) -> String {
    serde_json::to_string(status).expect("wire types have text keys")
}

/// `why` is who is late, and why, on lines of their own.
fn of_policies(status: PoliciesStatus, why: &[String]) -> String {
    let PoliciesStatus { life: _, revision: _, complete, mut policies } = status;
    if policies.is_empty() {
        return with_doubts("No policies.".to_owned(), complete);
    }
    policies.sort_by(|one, other| key(one).cmp(&key(other)));
    let names =
        ["source", "destination", "protocol", "ports", "revision", "enforced", "waiting for"];
    let mut told = table(names, policies.iter().map(policy));
    if !why.is_empty() {
        told = format!("{told}\n\n{}", why.join("\n"));
    }
    with_doubts(told, complete)
}

fn key(status: &PolicyStatus) -> (&str, &str, &str, i64, i64) {
    let Destination { id, tag: _, protocol, ports: Ports { start, end } } = &status.destination;
    (&status.source.id, id, protocol, *start, *end)
}

fn policy(status: &PolicyStatus) -> [String; 7] {
    let tally = Tally::of(status);
    let PolicyStatus { source, destination, revision, relevant, enforced, waiting: _ } = status;
    let Destination { id, tag: _, protocol, ports } = destination;
    let waiting = if tally.missing() == 0 {
        "-".to_owned()
    } else {
        words::few(&tally.waiting, tally.missing())
    };
    [
        shown(&source.id),
        shown(id),
        shown(protocol),
        ports_of(*ports),
        revision.to_string(),
        format!("{enforced} of {relevant}"),
        waiting,
    ]
}

fn ports_of(Ports { start, end }: Ports) -> String {
    if start == end { start.to_string() } else { format!("{start}-{end}") }
}

fn of_cells(status: &Status) -> String {
    let Status { life: _, revision: _, complete, cells } = status;
    if cells.is_empty() {
        return with_doubts("No cells.".to_owned(), *complete);
    }
    let names =
        ["cell", "enforced", "since", "wanted", "heard", "apps", "groups", "backend", "error"];
    with_doubts(table(names, cells.iter().map(cell)), *complete)
}

fn cell(status: &CellStatus) -> [String; 9] {
    let CellStatus {
        cell,
        server: _,
        enforced,
        enforced_seconds,
        wanted,
        silent_seconds,
        apps,
        backend,
        error,
        security_groups,
    } = status;
    let of_groups = security_groups.as_ref();
    let error = error.as_ref().or_else(|| of_groups?.error.as_ref());
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        shown(cell),
        or_dash(enforced.map(|revision| revision.to_string())),
        or_dash(enforced_seconds.map(ago)),
        wanted.to_string(),
        ago(*silent_seconds),
        apps.to_string(),
        or_dash(of_groups.map(groups)),
        or_dash(backend.as_deref().map(shown)),
        or_dash(error.map(|error| shown(error))),
    ]
}

/// Which security groups are enforced, of which are wanted.
fn groups(GroupsStatus { enforced, wanted, spaces: _, error: _ }: &GroupsStatus) -> String {
    match enforced {
        Some(enforced) if enforced >= wanted => "enforced".to_owned(),
        Some(enforced) => format!("{enforced} of {wanted}"),
        None => "not enforced".to_owned(),
    }
}

fn with_doubts(told: String, complete: bool) -> String {
    if complete {
        return told;
    }
    format!("{told}\n\nNot every cell has been heard of yet: there may be others.")
}

#[cfg(test)]
mod tests {
    use policy::wire::Source;

    use super::*;

    fn told(source: &str, relevant: usize, waiting: &[&str]) -> PolicyStatus {
        PolicyStatus {
            source: Source { id: source.to_owned(), ..Source::default() },
            destination: Destination {
                id: "db".to_owned(),
                protocol: "tcp".to_owned(),
                ports: Ports { start: 5432, end: 5432 },
                ..Destination::default()
            },
            revision: 41,
            relevant,
            enforced: relevant - waiting.len(),
            waiting: waiting.iter().map(|&cell| cell.to_owned()).collect(),
        }
    }

    #[test]
    fn each_policy_is_told_with_those_it_waits_for() {
        let four = ["c1", "c\u{1b}2", "c3", "c4"];
        let policies = vec![told("web", 1000, &four), told("api", 3, &[])];
        let status = PoliciesStatus { complete: true, policies, ..PoliciesStatus::default() };
        let why = ["c1: no such table".to_owned(), "c3: shadow mode".to_owned()];
        insta::assert_snapshot!(of_policies(status, &why), @r"
        source  destination  protocol  ports  revision  enforced     waiting for
        api     db           tcp       5432   41        3 of 3       -
        web     db           tcp       5432   41        996 of 1000  c1, c�2, c3 and 1 more

        c1: no such table
        c3: shadow mode
        ");
    }

    #[test]
    fn each_cell_is_told_with_what_troubles_it() {
        let well = CellStatus {
            cell: "cell-1".to_owned(),
            enforced: Some(41),
            enforced_seconds: Some(75.2),
            wanted: 41,
            apps: 50,
            backend: Some("nftables".to_owned()),
            security_groups: Some(GroupsStatus { enforced: Some(7), ..GroupsStatus::default() }),
            ..CellStatus::default()
        };
        let ill = CellStatus {
            cell: "cell-2".to_owned(),
            wanted: 40,
            silent_seconds: 7300.0,
            error: Some("no such table".to_owned()),
            ..CellStatus::default()
        };
        let error = Some("shadow mode".to_owned());
        let watching = GroupsStatus { wanted: 7, error, ..GroupsStatus::default() };
        let groups = GroupsStatus { enforced: Some(6), ..watching.clone() };
        let behind = CellStatus {
            cell: "cell-3".to_owned(),
            security_groups: Some(GroupsStatus { error: None, ..groups }),
            ..well.clone()
        };
        let watching = CellStatus {
            cell: "cell-4".to_owned(),
            security_groups: Some(watching),
            ..well.clone()
        };
        let status = Status { cells: vec![well, ill, behind, watching], ..Status::default() };
        insta::assert_snapshot!(of_cells(&status), @r"
        cell    enforced  since      wanted  heard    apps  groups        backend   error
        cell-1  41        1 min ago  41      now      50    enforced      nftables  -
        cell-2  -         -          40      2 h ago  0     -             -         no such table
        cell-3  41        1 min ago  41      now      50    6 of 7        nftables  -
        cell-4  41        1 min ago  41      now      50    not enforced  nftables  shadow mode

        Not every cell has been heard of yet: there may be others.
        ");
    }

    #[test]
    fn nothing_is_told_as_such() {
        let complete = true;
        let status = PoliciesStatus { complete, ..PoliciesStatus::default() };
        assert_eq!(of_policies(status, &[]), "No policies.");
        assert_eq!(of_cells(&Status { complete, ..Status::default() }), "No cells.");
    }
}
