use std::collections::BTreeSet;

use super::*;

/// Method, path in the words of OpenAPI, and the scopes of which one is needed.
type Operation = (String, String, BTreeSet<String>);

fn offered() -> BTreeSet<Operation> {
    let operation = |row: Row| {
        let method = row.method.as_str().to_lowercase();
        let path = row.path.to_string().replace(":version", "{version}");
        let scopes = row.access.map_or(&[][..], Access::scopes);
        (method, path, scopes.iter().map(|&scope| scope.to_owned()).collect())
    };
    external_2024().into_iter().map(operation).collect()
}

fn documented() -> BTreeSet<Operation> {
    let document: serde_json::Value = serde_json::from_str(openapi::text()).unwrap();
    let mut documented = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let ways = operation["security"].as_array().into_iter().flatten();
            let scopes = ways.flat_map(|way| way["token"].as_array().unwrap());
            let scopes = scopes.map(|scope| scope.as_str().unwrap().to_owned()).collect();
            documented.insert((method.clone(), path.clone(), scopes));
        }
    }
    documented
}

/// The page is written by hand, and a route is easily forgotten.
#[test]
fn the_page_for_callers_has_a_line_for_each_route() {
    let page = include_str!("../../../docs/api.md");
    for (door, rows) in [("$API", external_2024()), ("$IN", internal_2024())] {
        for row in rows {
            let line = format!("{door}{}", row.path.to_string().replace(":version", "v1"));
            let method = match row.method {
                DELETE => "-X DELETE ",
                PUT => "-X PUT ",
                _ => "",
            };
            let shows = |text: &str| {
                text.contains(method) && text.split([' ', '"', '?']).any(|word| word == line)
            };
            assert!(page.lines().any(shows), "docs/api.md does not show {} {line}", row.method);
        }
    }
}

#[test]
fn the_document_tells_of_each_route_and_of_no_other() {
    assert_eq!(documented(), offered());
}
