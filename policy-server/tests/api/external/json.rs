//! Bodies as Go's decoder takes them (spec/policy-server.md §2.6), because callers rely on it.

use reqwest::{Client, Method};

use super::{DELETE, POLICIES, TAGS, V0, V0_DELETE};
use crate::world::{World, answer};

/// A body whose policies are `policies`.
fn body(policies: &str) -> String {
    format!(r#"{{"policies":{policies}}}"#)
}

const PORTS: &str = r#""ports":{"start":1,"end":1}"#;

async fn creates(world: &World, body: &str) {
    let created = world.admin(Method::POST, POLICIES, body).await;
    assert_eq!((created.status, created.text.as_str()), (200, "{}"), "{body}");
}

/// That each body is refused with these words, by create and delete alike.
async fn are_refused<'a>(path: [&str; 2], cases: impl IntoIterator<Item = (&'a str, &'a str)>) {
    let world = World::start().await;
    for (body, words) in cases {
        for path in path {
            let refused = world.admin(Method::POST, path, body).await;
            let text = format!("mapper: unmarshal json: {words}");
            assert_eq!(refused.refusal(), (400, text), "{path} {body}");
        }
    }
    assert_eq!(world.get(TAGS).await.text, r#"{"tags":[]}"#, "nothing was stored");
}

#[tokio::test]
async fn keys_match_whatever_their_case() {
    let world = World::start().await;
    creates(
        &world,
        r#"{"Policies":[{"SOURCE":{"Id":"web"},"destinatioN":{"iD":"db","Protocol":"tcp","PORTS":{"Start":1,"END":2}}}]}"#,
    )
    .await;
    assert_eq!(world.listed("").await, ["web db tcp 1-2"]);
}

#[tokio::test]
async fn unknown_keys_are_ignored() {
    let world = World::start().await;
    creates(
        &world,
        &body(&format!(
            r#"[{{"source":{{"id":"web","type":"app"}},"destination":{{"id":"db","type":"app","ips":[{{"start":"1.1.1.1","end":"1.1.1.2"}}],"protocol":"tcp","port":99,{PORTS},"rules":null}},"name":{{"a":[1]}}}}],"egress_policies":[{{}}]"#
        )),
    )
    .await;
    let text = r#"{"total_policies":1,"policies":[{"source":{"id":"web"},"destination":{"id":"db","protocol":"tcp","ports":{"start":1,"end":1}}}]}"#;
    assert_eq!(world.get(POLICIES).await.text, text, "and never sent");
}

#[tokio::test]
async fn the_last_of_equal_keys_wins() {
    let world = World::start().await;
    creates(
        &world,
        &body(&format!(
            r#"[{{"source":{{"id":"no","ID":"web"}},"destination":{{"id":"db","protocol":"udp","protocol":"tcp",{PORTS}}}}}]"#
        )),
    )
    .await;
    assert_eq!(world.listed("").await, ["web db tcp 1-1"]);
}

#[tokio::test]
async fn null_is_as_good_as_absent() {
    let world = World::start().await;
    let refusal = async |body: &str| world.admin(Method::POST, POLICIES, body).await.text;
    let invalid = |text: &str| format!(r#"{{"error": "mapper: validate policies: {text}"}}"#);
    assert_eq!(refusal(r#"{"policies":null}"#).await, invalid("missing policies"));
    assert_eq!(refusal("null").await, invalid("missing policies"));
    assert_eq!(refusal(&body("[null]")).await, invalid("missing source id"));
    assert_eq!(refusal(&body(r#"[{"source":null}]"#)).await, invalid("missing source id"));
    let no_ports =
        r#"[{"source":{"id":"a"},"destination":{"id":"b","protocol":"tcp","ports":null}}]"#;
    assert_eq!(refusal(&body(no_ports)).await, invalid("missing start port"));
    creates(
        &world,
        &body(&format!(
            r#"[{{"source":{{"id":"web","tag":null}},"destination":{{"id":"db","protocol":"tcp",{PORTS}}}}}],"total_policies":null"#
        )),
    )
    .await;
}

#[tokio::test]
async fn integers_are_written_as_integers() {
    let ports = |start: &str| {
        body(&format!(r#"[{{"destination":{{"ports":{{"start":{start},"end":1}}}}}}]"#))
    };
    let place = "into Go struct field Ports.policies.destination.ports.start of type int";
    let cases = [
        ("8080.0", format!("json: cannot unmarshal number 8080.0 {place}")),
        ("\"8080\"", format!("json: cannot unmarshal string {place}")),
        ("true", format!("json: cannot unmarshal bool {place}")),
        ("[1]", format!("json: cannot unmarshal array {place}")),
        ("{}", format!("json: cannot unmarshal object {place}")),
    ]
    .map(|(start, words)| (ports(start), words));
    are_refused([POLICIES, DELETE], cases.iter().map(|(body, words)| (&**body, &**words))).await;

    let world = World::start().await;
    for start in ["8e3", "1E0", "0.5", "-0.0", "99999999999999999999"] {
        let (status, text) = world.admin(Method::POST, POLICIES, &ports(start)).await.refusal();
        assert_eq!(status, 400);
        assert!(
            text.starts_with("mapper: unmarshal json: json: cannot unmarshal number "),
            "{text}"
        );
        assert!(text.ends_with(place), "{text}");
    }
}

#[tokio::test]
async fn what_is_no_json_is_refused_in_gos_words() {
    are_refused(
        [POLICIES, V0_DELETE],
        [
            ("", "unexpected end of JSON input"),
            ("   ", "unexpected end of JSON input"),
            (r#"{"policies":[{"#, "unexpected end of JSON input"),
            ("banana", "invalid character 'b' looking for beginning of value"),
            (r#"{"policies":[}"#, "invalid character '}' looking for beginning of value"),
            ("{policies:[]}", "invalid character 'p' looking for beginning of object key string"),
            (r#"{"policies" []}"#, "invalid character '[' after object key"),
            (r#"{"policies":[] "a"}"#, "invalid character '\"' after object key:value pair"),
            (r#"{"policies":[1 2]}"#, "invalid character '2' after array element"),
        ],
    )
    .await;
}

#[tokio::test]
async fn nothing_but_space_may_follow() {
    are_refused(
        [POLICIES, DELETE],
        [
            (r#"{"policies":[]} trailing"#, "invalid character 't' after top-level value"),
            (r#"{"policies":[]}{}"#, "invalid character '{' after top-level value"),
        ],
    )
    .await;
    let world = World::start().await;
    let padded = format!(
        "\n\t {}\r\n ",
        body(&format!(
            r#"[{{"source":{{"id":"web"}},"destination":{{"id":"db","protocol":"tcp",{PORTS}}}}}]"#
        ))
    );
    creates(&world, &padded).await;
}

#[tokio::test]
async fn a_value_of_the_wrong_kind_is_refused_in_gos_words() {
    are_refused(
        [POLICIES, DELETE],
        [
            ("[]", "json: cannot unmarshal array into Go value of type api.PoliciesPayload"),
            ("\"a\"", "json: cannot unmarshal string into Go value of type api.PoliciesPayload"),
            ("7", "json: cannot unmarshal number into Go value of type api.PoliciesPayload"),
            (
                r#"{"policies":{}}"#,
                "json: cannot unmarshal object into Go struct field PoliciesPayload.policies of type []api.Policy",
            ),
            (
                r#"{"policies":[[]]}"#,
                "json: cannot unmarshal array into Go struct field PoliciesPayload.policies of type api.Policy",
            ),
            (
                r#"{"policies":[{"source":"web"}]}"#,
                "json: cannot unmarshal string into Go struct field Policy.policies.source of type api.Source",
            ),
            (
                r#"{"policies":[{"source":{"id":7}}]}"#,
                "json: cannot unmarshal number into Go struct field Source.policies.source.id of type string",
            ),
        ],
    )
    .await;
    are_refused(
        [V0, V0_DELETE],
        [
            ("[]", "json: cannot unmarshal array into Go value of type api_v0.Policies"),
            (
                r#"{"policies":[{"destination":{"port":"80"}}]}"#,
                "json: cannot unmarshal string into Go struct field Destination.policies.destination.port of type int",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn invalid_utf_8_becomes_the_replacement_character() {
    let world = World::start().await;
    let mut bytes = br#"{"policies":[{"source":{"id":"w"#.to_vec();
    bytes.push(0xff);
    bytes.extend(
        br#"b"},"destination":{"id":"db","protocol":"tcp","ports":{"start":1,"end":1}}}]}"#,
    );
    let request = Client::new()
        .post(format!("{}{POLICIES}", world.external))
        .bearer_auth(world.token(&["network.admin"]))
        .body(bytes);
    assert_eq!(answer(request).await.status, 200);
    assert_eq!(world.listed("").await, ["w\u{fffd}b db tcp 1-1"]);
}

#[tokio::test]
async fn characters_of_html_are_escaped_on_output() {
    let world = World::start().await;
    world.create(&["<a>&\u{2028} db tcp 1"]).await;
    let text = r#"{"total_policies":1,"policies":[{"source":{"id":"\u003ca\u003e\u0026\u2028"},"destination":{"id":"db","protocol":"tcp","ports":{"start":1,"end":1}}}]}"#;
    assert_eq!(world.get(POLICIES).await.text, text);
}

/// The existing system forgets to escape the decoder's words, and its body is no JSON then (§16).
#[tokio::test]
async fn a_refusal_is_json_whatever_it_quotes() {
    let world = World::start().await;
    let refused = world.admin(Method::POST, POLICIES, r#"{"policies":[] "a"}"#).await;
    assert_eq!(
        refused.text,
        r#"{"error": "mapper: unmarshal json: invalid character '\"' after object key:value pair"}"#
    );
}

#[tokio::test]
async fn the_count_of_what_is_sent_is_not_looked_at() {
    let world = World::start().await;
    for (path, count) in [(POLICIES, "-1"), (V0, "7"), (POLICIES, "null")] {
        let body = format!(
            r#"{{"total_policies":{count},"policies":[{{"source":{{"id":"web"}},"destination":{{"id":"db","protocol":"tcp","port":1,{PORTS}}}}}]}}"#
        );
        assert_eq!(world.admin(Method::POST, path, &body).await.status, 200, "{body}");
    }
}

#[tokio::test]
async fn the_type_of_the_body_is_not_looked_at() {
    let world = World::start().await;
    let body = body(&format!(
        r#"[{{"source":{{"id":"web"}},"destination":{{"id":"db","protocol":"tcp",{PORTS}}}}}]"#
    ));
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "nonsense"] {
        let request = Client::new()
            .post(format!("{}{POLICIES}", world.external))
            .bearer_auth(world.token(&["network.admin"]))
            .header("Content-Type", content_type)
            .body(body.clone());
        assert_eq!(answer(request).await.status, 200, "{content_type}");
    }
}
