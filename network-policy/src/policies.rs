//! `policies`: one request, one table.

use std::io::Write;

use policy::{Policy, wire::v1::PolicyList};
use policy_client::external::{Client, Filter};

use crate::{args::PoliciesArgs, failure::Failure, table::table, words};

pub(crate) fn run(
    client: &Client,
    which: PoliciesArgs,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let policies = client.list(&filter(which)).map_err(Failure::Client)?;
    let text = match (json, policies.as_slice()) {
        (true, policies) => as_json(policies),
        (false, []) => "No policies that you may see.".to_owned(),
        (false, policies) => as_text(policies),
    };
    writeln!(out, "{text}").map_err(Failure::Output)
}

fn filter(which: PoliciesArgs) -> Filter {
    let PoliciesArgs { source, destination, app } = which;
    let some = |apps: Vec<_>| (!apps.is_empty()).then(|| apps.into_iter().collect());
    match (some(app), some(source), some(destination)) {
        (Some(apps), _, _) => Filter::Concerning(apps),
        (None, None, None) => Filter::All,
        (None, sources, destinations) => Filter::Between { sources, destinations },
    }
}

/// The list of API version 1, as the server writes it.
fn as_json(policies: &[Policy]) -> String {
    serde_json::to_string(&PolicyList::of(policies)).expect("wire types have text keys")
}

fn as_text(policies: &[Policy]) -> String {
    let row = |policy: &Policy| {
        let Policy { source, destination, protocol, ports } = policy;
        let [source, destination] = [source, destination].map(|app| words::shown(app.as_str()));
        [source, destination, protocol.to_string(), ports.to_string()]
    };
    table(["source", "destination", "protocol", "ports"], policies.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies() -> Vec<Policy> {
        let policy = |source: &str, destination: &str, protocol: &str, ports: &str| Policy {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: protocol.parse().unwrap(),
            ports: ports.parse().unwrap(),
        };
        vec![
            policy("3f0a1d52-7f0e-4b2e-9a55-1d0c5f6f7a10", "db", "tcp", "5432"),
            policy("web", "a cache with spaces", "udp", "7000-7010"),
        ]
    }

    #[test]
    fn the_table_is_one_line_to_a_policy() {
        insta::assert_snapshot!(as_text(&policies()), @r"
        source                                destination          protocol  ports
        3f0a1d52-7f0e-4b2e-9a55-1d0c5f6f7a10  db                   tcp       5432
        web                                   a cache with spaces  udp       7000-7010
        ");
    }

    #[test]
    fn the_json_is_the_servers() {
        let expected = "{\"total_policies\":1,\"policies\":[{\"source\":{\"id\":\
             \"3f0a1d52-7f0e-4b2e-9a55-1d0c5f6f7a10\"},\"destination\":{\"id\":\"db\",\
             \"protocol\":\"tcp\",\"ports\":{\"start\":5432,\"end\":5432}}}]}";
        assert_eq!(as_json(&policies()[..1]), expected);
        assert_eq!(as_json(&[]), r#"{"total_policies":0,"policies":[]}"#);
    }

    #[test]
    fn options_become_one_filter() {
        let which = |source: &[&str], destination: &[&str], app: &[&str]| {
            let apps = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
            filter(PoliciesArgs {
                source: apps(source),
                destination: apps(destination),
                app: apps(app),
            })
        };
        let set = |name: &str| Some([name.parse().unwrap()].into());
        assert_eq!(which(&[], &[], &[]), Filter::All);
        assert_eq!(which(&[], &[], &["x"]), Filter::Concerning(set("x").unwrap()));
        let (sources, destinations) = (set("a"), None);
        assert_eq!(which(&["a"], &[], &[]), Filter::Between { sources, destinations });
        let (sources, destinations) = (set("a"), set("b"));
        assert_eq!(which(&["a"], &["b"], &[]), Filter::Between { sources, destinations });
    }
}
