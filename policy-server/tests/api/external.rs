use std::time::SystemTime;

use reqwest::{Client, Method};
use serde_json::json;

use crate::world::{Answer, World, answer, v1};

const POLICIES: &str = "/networking/v1/external/policies";
const DELETE: &str = "/networking/v1/external/policies/delete";
const V0: &str = "/networking/v0/external/policies";
const WHOAMI: &str = "/networking/v1/external/whoami";

async fn anonymous(world: &World, method: Method, path: &str) -> Answer {
    answer(Client::new().request(method, format!("{}{path}", world.external))).await
}

#[tokio::test]
async fn anyone_may_ask_whether_it_is_up() {
    let world = World::start().await;
    for path in ["/", "/networking"] {
        let answer = anonymous(&world, Method::GET, path).await;
        assert_eq!(answer.status, 200);
        let up = answer.text.strip_prefix("Network policy server, up for ").unwrap();
        assert!(up.ends_with("s\n"), "{up:?}");
    }
    let health = anonymous(&world, Method::GET, "/health").await;
    assert_eq!((health.status, health.text.as_str()), (200, ""));
}

#[tokio::test]
async fn matched_routes_answer_with_the_headers_of_caution_and_an_id() {
    let world = World::start().await;
    let known = anonymous(&world, Method::GET, WHOAMI).await;
    assert_eq!(known.status, 401);
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-xss-protection", "1; mode=block"),
        ("x-frame-options", "deny"),
        ("content-security-policy", "frame-ancestors 'none'"),
        ("www-authenticate", "Bearer"),
    ] {
        assert_eq!(known.header(name), value);
    }
    assert_eq!(known.header("x-vcap-request-id").len(), 36);
    assert!(!known.headers.contains_key("strict-transport-security"), "no TLS here");

    let request = Client::new().get(&world.external).header("X-VCAP-Request-ID", "router-7");
    let answer = answer(request).await;
    let (theirs, ours) = answer.header("x-vcap-request-id").split_once("::").unwrap();
    assert_eq!((theirs, ours.len()), ("router-7", 36));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_refused_like_the_existing_server_does() {
    let world = World::start().await;
    let paths = [
        "/nope",
        "/networking/",
        "/networking/v1/external/policies/",
        "/networking/v1/internal/policies",
        "/leases",
    ];
    for path in paths {
        let answer = anonymous(&world, Method::GET, path).await;
        assert_eq!((answer.status, answer.text.as_str()), (404, "404 page not found\n"), "{path}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert!(!answer.headers.contains_key("x-frame-options"));
    }
    for (method, path, allowed) in [
        (Method::PUT, POLICIES, "GET, POST"),
        (Method::DELETE, POLICIES, "GET, POST"),
        (Method::GET, DELETE, "POST"),
        (Method::POST, WHOAMI, "GET"),
        (Method::HEAD, "/", "GET"),
        (Method::HEAD, POLICIES, "GET, POST"),
    ] {
        let answer = anonymous(&world, method.clone(), path).await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert_eq!(answer.header("allow"), allowed, "{method} {path}");
        if method != Method::HEAD {
            assert_eq!(answer.text, "Method Not Allowed\n");
        }
    }
    assert_eq!(anonymous(&world, Method::HEAD, "/nope").await.status, 404);
}

#[tokio::test]
async fn a_version_that_does_not_exist_is_refused_before_the_token_is_looked_at() {
    let world = World::start().await;
    for (method, rest) in [
        (Method::GET, "whoami"),
        (Method::GET, "policies"),
        (Method::POST, "policies"),
        (Method::POST, "policies/delete"),
        (Method::GET, "tags"),
        (Method::GET, "status"),
    ] {
        let answer = anonymous(&world, method, &format!("/networking/v9/external/{rest}")).await;
        let text = r#"{"error": "api version 'v9' not supported"}"#;
        assert_eq!((answer.status, answer.text.as_str()), (406, text), "{rest}");
    }
}

#[tokio::test]
async fn only_a_token_of_this_server_is_believed() {
    let world = World::start().await;
    let other = World::start().await;
    let with = |header: Option<String>| {
        let request = Client::new().get(format!("{}{WHOAMI}", world.external));
        match header {
            Some(header) => answer(request.header("Authorization", header)),
            None => answer(request),
        }
    };
    let missing = with(None).await;
    assert_eq!(missing.text, r#"{"error": "missing authorization header"}"#);
    assert_eq!((missing.status, missing.header("www-authenticate")), (401, "Bearer"));

    let key = std::fs::read(world.pki("token-signing.key")).unwrap();
    let key = jsonwebtoken::EncodingKey::from_ec_pem(&key).unwrap();
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let expired = json!({"iss": "netman", "aud": "network-policy", "sub": "alice",
        "scope": ["network.admin"], "iat": now - 120, "exp": now - 60});
    let expired = jsonwebtoken::encode(&header, &expired, &key).unwrap();
    let good = world.token(&["network.admin"]);
    for bad in [
        String::new(),
        "Bearer ".to_owned(),
        "Bearer nonsense".to_owned(),
        format!("Bearer {expired}"),
        format!("Bearer {}", other.token(&["network.admin"])),
        format!("Bearer {good}x"),
        format!("Basic {good}"),
    ] {
        let refused = with(Some(bad.clone())).await;
        assert_eq!(refused.text, r#"{"error": "failed to verify token with uaa"}"#, "{bad:?}");
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Bearer"));
    }
    for header in [format!("Bearer {good}"), format!("bearer {good}"), good] {
        assert_eq!(with(Some(header)).await.text, r#"{"subject":"alice"}"#);
    }
}

#[tokio::test]
async fn scopes_decide_which_routes_are_open() {
    let world = World::start().await;
    let write_only = ["network.write"];
    for path in [WHOAMI, "/networking/v0/external/tags", "/networking/v1/external/status"] {
        let refused = world.call(&write_only, Method::GET, path, "").await;
        let text = "provided scopes [network.write] do not include allowed scopes [network.admin]";
        assert_eq!(refused.refusal(), (403, text.to_owned()));
        assert_eq!(world.get(path).await.status, 200);
    }
    for (method, path) in [
        (Method::GET, POLICIES),
        (Method::POST, POLICIES),
        (Method::POST, DELETE),
        (Method::DELETE, V0),
    ] {
        let refused = world.call(&["a", "b"], method.clone(), path, "").await;
        let text =
            "provided scopes [a b] do not include allowed scopes [network.admin network.write]";
        assert_eq!(refused.refusal(), (403, text.to_owned()), "{method} {path}");
        let refused = world.call(&[], method, path, "").await.refusal().1;
        assert!(refused.starts_with("provided scopes [] do not"), "{refused}");
    }
}

#[tokio::test]
async fn without_a_cloud_controller_writers_see_and_change_nothing() {
    let world = World::start().await;
    world.create(&["web db tcp 5432"]).await;
    let writer = ["network.write"];
    let denied = (403, "one or more applications cannot be found or accessed".to_owned());
    for path in [POLICIES, DELETE] {
        let refused = world.call(&writer, Method::POST, path, &v1(&["web db tcp 5432"])).await;
        assert_eq!(refused.refusal(), denied);
        // What is wrong with the body is told first.
        assert_eq!(world.call(&writer, Method::POST, path, "{}").await.status, 400);
    }
    let listed = world.call(&writer, Method::GET, POLICIES, "").await;
    assert_eq!(
        (listed.status, listed.text.as_str()),
        (200, r#"{"total_policies":0,"policies":[]}"#)
    );
    assert_eq!(world.listed("").await, ["web db tcp 5432-5432"]);
}

#[tokio::test]
async fn what_is_created_is_listed_until_it_is_deleted() {
    let world = World::start().await;
    assert_eq!(world.get(POLICIES).await.text, r#"{"total_policies":0,"policies":[]}"#);
    let first = world.create(&["web db tcp 5432", "web cache udp 7000-7010"]).await;
    let again = world.create(&["web db tcp 5432"]).await;
    assert_eq!(first, again, "creating what exists changes nothing");
    assert_eq!(world.listed("").await, ["web cache udp 7000-7010", "web db tcp 5432-5432"]);
    world.delete(&["web cache udp 7000-7010", "never existed tcp 1"]).await;
    let text = r#"{"total_policies":1,"policies":[{"source":{"id":"web"},"destination":{"id":"db","protocol":"tcp","ports":{"start":5432,"end":5432}}}]}"#;
    assert_eq!(world.get(POLICIES).await.text, text);
}

#[tokio::test]
async fn version_0_says_the_same_with_one_port() {
    let world = World::start().await;
    let body = r#"{"policies":[{"source":{"id":"web"},"destination":{"id":"db","protocol":"udp","port":53}}]}"#;
    let created = world.admin(Method::POST, V0, body).await;
    assert_eq!((created.status, created.text.as_str()), (200, "{}"));
    world.create(&["web db tcp 1-2"]).await;
    let text = r#"{"total_policies":1,"policies":[{"source":{"id":"web"},"destination":{"id":"db","protocol":"udp","port":53}}]}"#;
    assert_eq!(world.get(V0).await.text, text, "a range cannot be said");
    assert_eq!(world.listed("").await, ["web db tcp 1-2", "web db udp 53-53"]);

    // Clients of 2016 delete with DELETE.
    let deleted = world.admin(Method::DELETE, V0, body).await;
    assert_eq!((deleted.status, deleted.text.as_str()), (200, "{}"));
    assert_eq!(world.listed("").await, ["web db tcp 1-2"]);
    world.create(&["web db udp 53"]).await;
    let path = format!("{V0}/delete");
    assert_eq!(world.admin(Method::POST, &path, body).await.status, 200);
    assert_eq!(world.listed("").await, ["web db tcp 1-2"]);
}

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
    assert_eq!(world.get("/networking/v1/external/tags").await.text, r#"{"tags":[]}"#);
}

#[tokio::test]
async fn malformed_json_is_refused_with_a_body_that_is_json() {
    let world = World::start().await;
    for body in [
        "nonsense",
        "[]",
        "\"text\"",
        r#"{"policies":[}"#,
        r#"{"policies":"a \" quote"}"#,
        r#"{"policies":[{"source":{"id":7}}]}"#,
        r#"{"policies":[]} trailing"#,
        r#"{"policies":[{"destination":{"ports":{"start":8080.0}}}]}"#,
        r#"{"policies":[{"destination":{"ports":{"start":"8080"}}}]}"#,
        r#"{"policies":[{"destination":{"ports":{"start":8e3}}}]}"#,
    ] {
        let refused = world.admin(Method::POST, POLICIES, body).await;
        let (status, text) = refused.refusal();
        assert_eq!(status, 400, "{body}");
        assert!(text.starts_with("mapper: unmarshal json: "), "{body}: {text}");
        assert!(refused.text.starts_with("{\"error\": \"mapper"), "{}", refused.text);
    }
}

#[tokio::test]
async fn the_count_of_what_is_sent_is_not_looked_at() {
    let world = World::start().await;
    for (path, count) in [(POLICIES, "-1"), (V0, "7"), (POLICIES, "null")] {
        let body = format!(
            r#"{{"total_policies":{count},"policies":[{{"source":{{"id":"web"}},"destination":{{"id":"db","protocol":"tcp","port":1,"ports":{{"start":1,"end":1}}}}}}]}}"#
        );
        assert_eq!(world.admin(Method::POST, path, &body).await.status, 200, "{body}");
    }
}

#[tokio::test]
async fn lists_can_be_filtered() {
    let world = World::start().await;
    world.create(&["a b tcp 1", "b c tcp 2", "c a tcp 3"]).await;
    let (ab, bc, ca) = ("a b tcp 1-1", "b c tcp 2-2", "c a tcp 3-3");
    for (query, expected) in [
        ("", vec![ab, bc, ca]),
        ("?id=a", vec![ab, ca]),
        ("?id=a,b", vec![ab, bc, ca]),
        ("?id=a&id=b", vec![ab, ca]),
        ("?id=", vec![]),
        ("?id=x", vec![]),
        ("?id=%20a", vec![]),
        ("?source_id=a,b", vec![ab, bc]),
        ("?dest_id=a", vec![ca]),
        ("?source_id=a,b&dest_id=c", vec![bc]),
        ("?source_id=a&dest_id=a", vec![]),
        ("?source_id=a&id=c", vec![bc, ca]),
        ("?unknown=a", vec![ab, bc, ca]),
    ] {
        assert_eq!(world.listed(query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn bodies_have_a_longest_length_for_those_who_are_admitted() {
    let world = World::start().await;
    // One byte too long, and many.
    for length in [(10 << 20) + 1, 11 << 20] {
        let body = " ".repeat(length);
        let refused = world.admin(Method::POST, POLICIES, &body).await;
        assert_eq!(refused.text, r#"{"error": "failed reading request body"}"#);
        assert_eq!(refused.status, 400);
        let refused = world.admin(Method::POST, DELETE, &body).await;
        assert_eq!(refused.text, r#"{"error": "invalid request body"}"#);
        assert_eq!(refused.status, 400);
    }
    let mut longest = v1(&["web db tcp 5432"]);
    longest.push_str(&" ".repeat((10 << 20) - longest.len()));
    assert_eq!(world.admin(Method::POST, POLICIES, &longest).await.status, 200);
}

#[tokio::test]
async fn tags_in_use_are_listed_in_order() {
    let world = World::start().await;
    world.create(&["web db tcp 1"]).await;
    world.create(&["web cache tcp 1"]).await;
    world.delete(&["web db tcp 1"]).await;
    world.create(&["queue web tcp 1"]).await;
    let text = r#"{"tags":[{"id":"web","tag":"0001","type":"app"},{"id":"queue","tag":"0002","type":"app"},{"id":"cache","tag":"0003","type":"app"}]}"#;
    for version in ["v0", "v1"] {
        let tags = world.get(&format!("/networking/{version}/external/tags")).await;
        assert_eq!((tags.status, tags.text.as_str()), (200, text));
    }
}
