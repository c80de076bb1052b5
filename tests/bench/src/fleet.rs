//! The policies of a fleet, and of those who change them while it is measured. All of them follow
//! from their numbers, so that nothing need be remembered.
//!
//! Apps come in clusters of a hundred; each has five policies to, and five from, others of its
//! cluster. So what one app or one cell asks for is as long whatever else is stored.

use std::fmt::Write;

use hyper::body::Bytes;

const CLUSTER: usize = 100;

/// Policies from, and to, each app.
const DEGREE: usize = 5;

/// The apps of those who change policies.
const CHANGING: usize = 2000;

/// How many policies there are to be changed: as many as ports leave room for.
pub(crate) const CHANGEABLE: usize = CHANGING * 60_000;

/// An app, as platforms name it.
struct App {
    kind: &'static str,
    number: usize,
}

/// How many apps `policies` of the fleet are about.
pub(crate) fn apps(policies: usize) -> usize {
    policies.div_ceil(DEGREE)
}

/// The guid of an app of the fleet.
pub(crate) fn guid(number: usize) -> String {
    App::of_fleet(number).guid()
}

/// The body that creates or deletes those policies of the fleet.
pub(crate) fn stored(numbers: impl Iterator<Item = usize>) -> Bytes {
    body(numbers, |number| {
        let (cluster, within) = (number / (CLUSTER * DEGREE), number % (CLUSTER * DEGREE));
        let (source, round) = (within % CLUSTER, within / CLUSTER);
        let destination = (source + 1 + 7 * round) % CLUSTER;
        let app = |place| App::of_fleet(cluster * CLUSTER + place);
        (app(source), app(destination), 8000 + round)
    })
}

/// The body that creates or deletes policies among those that change.
pub(crate) fn changing(numbers: impl Iterator<Item = usize>) -> Bytes {
    body(numbers, |number| {
        let (source, round) = (number % CHANGING, number / CHANGING);
        let app = |number| App { kind: "c4a9", number };
        (app(source), app((source * 13 + 7) % CHANGING), 1024 + round)
    })
}

fn body(
    numbers: impl Iterator<Item = usize>,
    policy: impl Fn(usize) -> (App, App, usize),
) -> Bytes {
    let mut text = String::from(r#"{"policies":["#);
    for (index, number) in numbers.enumerate() {
        let (source, destination, port) = policy(number);
        let comma = if index == 0 { "" } else { "," };
        write!(
            text,
            r#"{comma}{{"source":{{"id":"{}"}},"destination":{{"id":"{}","protocol":"tcp","ports":{{"start":{port},"end":{port}}}}}}}"#,
            source.guid(),
            destination.guid(),
        )
        .expect("a text takes any more");
    }
    text.push_str("]}");
    text.into()
}

impl App {
    fn of_fleet(number: usize) -> Self {
        Self { kind: "f1ee", number }
    }

    fn guid(&self) -> String {
        format!("{:08x}-{}-4bad-8000-0000cafe0000", self.number, self.kind)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;

    fn policies(body: &Bytes) -> Vec<Value> {
        let list: Value = serde_json::from_slice(body).unwrap();
        list["policies"].as_array().unwrap().clone()
    }

    #[test]
    fn no_two_policies_are_equal() {
        for all in [stored(0..10_000), changing(0..10_000)] {
            let mut texts: Vec<_> = policies(&all).iter().map(Value::to_string).collect();
            texts.sort();
            texts.dedup();
            assert_eq!(texts.len(), 10_000);
        }
    }

    #[test]
    fn each_app_has_as_many_policies_as_any() {
        let mut touching = BTreeMap::<String, usize>::new();
        for policy in policies(&stored(0..1000)) {
            for end in ["source", "destination"] {
                *touching.entry(policy[end]["id"].to_string()).or_default() += 1;
            }
        }
        assert_eq!(touching.len(), apps(1000));
        assert!(touching.contains_key(&format!("{:?}", guid(0))));
        assert!(touching.values().all(|count| *count == 2 * DEGREE));
    }

    #[test]
    fn the_last_that_can_change_has_a_port() {
        let last = policies(&changing(CHANGEABLE - 1..CHANGEABLE));
        assert!(last[0]["destination"]["ports"]["end"].as_u64().unwrap() <= 65_535);
    }
}
