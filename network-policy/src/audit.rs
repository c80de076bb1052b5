//! `audit`: one page of the trail, a line for each policy that came or went.

use std::io::Write;

use policy::wire::{
    audit::{AuditEntry, AuditPage},
    v1::{Destination, PolicyBody, Ports},
};
use policy_client::external::Client;

use crate::{args::AuditArgs, failure::Failure, table::table, words::shown};

pub(crate) fn run(
    client: &Client,
    which: AuditArgs,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let AuditArgs { last, before } = which;
    let page = client.audit(last, before).map_err(Failure::Client)?;
    let text = if json { as_json(&page) } else { as_text(&page) };
    writeln!(out, "{text}").map_err(Failure::Output)
}

/// The page as the server writes it.
fn as_json(page: &AuditPage) -> String {
    serde_json::to_string(page).expect("wire types have text keys")
}

fn as_text(page: &AuditPage) -> String {
    let AuditPage { next, entries } = page;
    if entries.is_empty() {
        return "No changes.".to_owned();
    }
    let names = ["time", "who", "from", "did", "source", "destination", "protocol", "ports"];
    let told = table(names, entries.iter().flat_map(rows));
    match next {
        0 => told,
        next => format!("{told}\n\nThere are older ones: --before {next}"),
    }
}

fn rows(entry: &AuditEntry) -> impl Iterator<Item = [String; 8]> {
    let AuditEntry { id: _, time, action, subject, address, request_id: _, revision: _, policies } =
        entry;
    let from = address.as_deref().unwrap_or("-");
    let did = action.strip_prefix("policies-").unwrap_or(action);
    let what = [time, subject, from, did].map(shown);
    policies.iter().map(move |PolicyBody { source, destination }| {
        let [time, subject, from, did] = what.clone();
        let Destination { id, tag: _, protocol, ports } = destination;
        let [source, destination, protocol] = [&*source.id, id, protocol].map(shown);
        [time, subject, from, did, source, destination, protocol, ports_of(*ports)]
    })
}

fn ports_of(Ports { start, end }: Ports) -> String {
    if start == end { start.to_string() } else { format!("{start}-{end}") }
}

#[cfg(test)]
mod tests {
    use policy::wire::Source;

    use super::*;

    fn policy(source: &str, destination: &str, ports: (i64, i64)) -> PolicyBody {
        PolicyBody {
            source: Source { id: source.to_owned(), ..Source::default() },
            destination: Destination {
                id: destination.to_owned(),
                protocol: "tcp".to_owned(),
                ports: Ports { start: ports.0, end: ports.1 },
                ..Destination::default()
            },
        }
    }

    fn entry(action: &str, subject: &str, address: Option<&str>) -> AuditEntry {
        AuditEntry {
            time: "2024-10-24T16:13:44.123456Z".to_owned(),
            action: action.to_owned(),
            subject: subject.to_owned(),
            address: address.map(str::to_owned),
            policies: vec![policy("web", "db", (5432, 5432)), policy("web", "cache", (70, 71))],
            ..AuditEntry::default()
        }
    }

    #[test]
    fn the_table_is_one_line_to_a_policy() {
        let page = AuditPage {
            next: 12,
            entries: vec![
                entry("policies-deleted", "policy-cleaner", None),
                entry("policies-created", "al\nice", Some("10.0.0.7")),
            ],
        };
        insta::assert_snapshot!(as_text(&page), @r"
        time                         who             from      did      source  destination  protocol  ports
        2024-10-24T16:13:44.123456Z  policy-cleaner  -         deleted  web     db           tcp       5432
        2024-10-24T16:13:44.123456Z  policy-cleaner  -         deleted  web     cache        tcp       70-71
        2024-10-24T16:13:44.123456Z  al�ice          10.0.0.7  created  web     db           tcp       5432
        2024-10-24T16:13:44.123456Z  al�ice          10.0.0.7  created  web     cache        tcp       70-71

        There are older ones: --before 12
        ");
    }

    #[test]
    fn the_end_of_the_trail_is_told_by_saying_nothing() {
        let page = AuditPage { next: 0, entries: vec![entry("renamed", "bob", None)] };
        let text = as_text(&page);
        assert!(!text.contains("older") && text.contains("renamed"), "{text}");
        assert_eq!(as_text(&AuditPage::default()), "No changes.");
    }
}
