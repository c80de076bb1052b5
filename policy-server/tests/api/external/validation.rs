use reqwest::Method;

use super::{POLICIES, TAGS, V0};
use crate::world::World;

#[tokio::test]
async fn what_is_not_valid_is_refused_and_nothing_of_it_stored() {
    let world = World::start().await;
    let good = r#"{"source":{"id":"web"},"destination":{"id":"db","protocol":"tcp","port":1,"ports":{"start":1,"end":1}}}"#;
    let with = |destination: &str| {
        format!(
            r#"{{"policies":[{good},{{"source":{{"id":"a"}},"destination":{{"id":"b",{destination}}}}}]}}"#
        )
    };
    let validate = |text: &str| format!("mapper: validate policies: {text}");
    let protocol = validate("invalid destination protocol, specify either udp or tcp");
    let both = [
        (r#"{"policies":null}"#.to_owned(), validate("missing policies")),
        ("{}".to_owned(), validate("missing policies")),
        (r#"{"policies":[{}]}"#.to_owned(), validate("missing source id")),
        (r#"{"policies":[{"source":{"id":"a"}}]}"#.to_owned(), validate("missing destination id")),
        (with(r#""protocol":"icmp","ports":{"start":1,"end":1}"#), protocol.clone()),
        (with(r#""protocol":"TCP","ports":{"start":1,"end":1}"#), protocol),
        (
            with(r#""protocol":"tcp","tag":"01","port":1,"ports":{"start":1,"end":1}"#),
            validate("tags may not be specified"),
        ),
        (String::new(), "mapper: unmarshal json: unexpected end of JSON input".to_owned()),
    ];
    let ranges = [
        (
            with(r#""protocol":"tcp","ports":{"start":10,"end":9}"#),
            validate("invalid port range 10-9, start must be less than or equal to end"),
        ),
        (
            with(r#""protocol":"tcp","ports":{"start":8080}"#),
            validate("invalid port range 8080-0, start must be less than or equal to end"),
        ),
        (
            with(r#""protocol":"tcp","ports":{"start":-1,"end":2}"#),
            validate("invalid start port -1, must be in range 1-65535"),
        ),
        (with(r#""protocol":"tcp","port":80"#), validate("missing start port")),
        (
            with(r#""protocol":"tcp","ports":{"start":1,"end":65536}"#),
            validate("invalid end port 65536, must be in range 1-65535"),
        ),
    ];
    let ports = [
        (
            with(r#""protocol":"tcp","port":-1"#),
            validate("invalid port -1, must be in range 1-65535"),
        ),
        (
            with(r#""protocol":"tcp","port":70000"#),
            validate("invalid port 70000, must be in range 1-65535"),
        ),
        (with(r#""protocol":"tcp","ports":{"start":1,"end":2}"#), validate("missing port")),
    ];
    for (version, cases) in [("v1", both.iter().chain(&ranges)), ("v0", both.iter().chain(&ports))]
    {
        for (body, text) in cases {
            for path in ["policies", "policies/delete"] {
                let path = format!("/networking/{version}/external/{path}");
                let refused = world.admin(Method::POST, &path, body).await;
                assert_eq!(refused.refusal(), (400, text.clone()), "{path} {body}");
            }
        }
    }
    assert_eq!(world.listed("").await, [""; 0]);
    assert_eq!(world.get(TAGS).await.text, r#"{"tags":[]}"#);
}

/// Several rules are broken by each; the first by number is told.
#[tokio::test]
async fn the_first_rule_that_is_broken_is_told() {
    let world = World::start().await;
    let (protocol, tagged) =
        ("invalid destination protocol, specify either udp or tcp", "tags may not be specified");
    let reversed = "invalid port range -5--7, start must be less than or equal to end";
    for (path, policy, text) in [
        (POLICIES, r#"{"source":{"tag":"1"}}"#, "missing source id"),
        (POLICIES, r#"{"source":{"id":"a"},"destination":{"tag":"1"}}"#, "missing destination id"),
        (POLICIES, r#"{"source":{"id":"a","tag":"1"},"destination":{"id":"b"}}"#, protocol),
        (
            POLICIES,
            r#"{"source":{"id":"a","tag":"1"},"destination":{"id":"b","protocol":"tcp","ports":{"start":-5,"end":-7}}}"#,
            reversed,
        ),
        (
            POLICIES,
            r#"{"source":{"id":"a","tag":"1"},"destination":{"id":"b","protocol":"tcp","ports":{"start":0,"end":70000}}}"#,
            "missing start port",
        ),
        (
            POLICIES,
            r#"{"source":{"id":"a","tag":"1"},"destination":{"id":"b","protocol":"tcp","ports":{"start":1,"end":70000}}}"#,
            "invalid end port 70000, must be in range 1-65535",
        ),
        (
            POLICIES,
            r#"{"source":{"id":"a","tag":"1"},"destination":{"id":"b","protocol":"tcp","ports":{"start":1,"end":1}}}"#,
            tagged,
        ),
        (
            V0,
            r#"{"source":{"id":"a","tag":"1"},"destination":{"id":"b","protocol":"tcp","port":70000}}"#,
            "invalid port 70000, must be in range 1-65535",
        ),
        (
            V0,
            r#"{"source":{"id":"a","tag":"1"},"destination":{"id":"b","protocol":"tcp","port":0}}"#,
            "missing port",
        ),
        (
            V0,
            r#"{"source":{"id":"a","tag":"1"},"destination":{"id":"b","protocol":"tcp","port":1}}"#,
            tagged,
        ),
    ] {
        let body = format!(r#"{{"policies":[{policy},{{}}]}}"#);
        let refused = world.admin(Method::POST, path, &body).await;
        let text = format!(r#"{{"error": "mapper: validate policies: {text}"}}"#);
        assert_eq!((refused.status, refused.text), (400, text), "{path} {policy}");
    }
}

#[tokio::test]
async fn the_ends_of_what_is_allowed_are_allowed() {
    let world = World::start().await;
    world.create(&["web db tcp 1-65535", "web db tcp 1", "web db udp 65535"]).await;
    for port in [1, 65535] {
        let body = format!(
            r#"{{"policies":[{{"source":{{"id":"a"}},"destination":{{"id":"b","protocol":"udp","port":{port}}}}}]}}"#
        );
        assert_eq!(world.admin(Method::POST, V0, &body).await.status, 200);
    }
    assert_eq!(world.listed("").await.len(), 5);
}
